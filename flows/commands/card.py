"""`labelstill card`: rewrite the card of a run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console()


def card_command(
    run: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The run's folder: `output` in its configuration")],
    title: Annotated[
        str | None, typer.Option(help="Name of the set; default: that of the last card, else the folder's name")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX identifier or name of the licence; default: that of the last card")
    ] = None,
    pack: Annotated[str | None, typer.Option(help="Pack whose prompts are shown; default: the last card's")] = None,
) -> None:
    """Write OUTPUT/card: a page about the run (index.html) and a README.md for the Hugging Face Hub."""
    from tasks.report.card.card import CardSettings, read_settings, write_card

    known = read_settings(run) or CardSettings(title=run.resolve().name)
    named = {"title": title, "licence": licence, "pack": pack}
    settings = known.model_copy(update={key: value for key, value in named.items() if value is not None})
    with console.status("writing"):
        page = write_card(run, settings)
    size = page.stat().st_size / (1 << 20)
    typer.echo(f"{size:.1f} MB: {page}")
