"""`labelstill ledger`: count the stored answers, and delete some of them."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.records import Outcome

if TYPE_CHECKING:
    from tasks.models.ledger.tools import Stats

app = typer.Typer(no_args_is_help=True, help="Count or delete the stored requests and answers.")
console = Console()

LedgerPath = Annotated[Path, typer.Option("--ledger", metavar="PATH", help="The ledger's file")]
_DEFAULT = Path("artifacts/ledger.sqlite")


@app.command()
def stats(ledger: LedgerPath = _DEFAULT) -> None:
    """Show the number of answers and tokens by purpose, model and outcome, and the file's size and age."""
    from tasks.models.ledger.tools import read_stats

    found = read_stats(ledger)
    _show(found)
    typer.echo(f"{found.rows:,} answers, {_format_megabytes(found.size)}: {ledger}")


@app.command()
def prune(
    ledger: LedgerPath = _DEFAULT,
    older_than: Annotated[float | None, typer.Option(metavar="DAYS", min=0, help="Stored more than DAYS ago")] = None,
    model: Annotated[str | None, typer.Option(help="Part of the engine's name, e.g. the model's name")] = None,
    purpose: Annotated[str | None, typer.Option(help="Purpose of the question: classify, rationale, …")] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Outcome of the answer")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without this, only show what would be deleted")] = False,
) -> None:
    """Delete the answers that meet all given conditions, and free the space. A run that needs them will ask again."""
    from tasks.models.ledger.tools import Choice, find_prunable
    from tasks.models.ledger.tools import prune as delete

    before = None if older_than is None else time.time() - older_than * 86_400
    choice = Choice(before, model, purpose, outcome)
    if not yes:
        doomed = find_prunable(ledger, choice)
        _show(doomed)
        typer.echo(f"{doomed.rows:,} answers would be deleted; --yes deletes them")
        return
    with console.status("deleting"):
        rows, freed = delete(ledger, choice)
    typer.echo(f"{rows:,} answers deleted, {_format_megabytes(freed)} freed")


def _show(found: "Stats") -> None:
    table = Table()
    for name in ("purpose", "model", "outcome"):
        table.add_column(name, overflow="fold")
    for name in ("answers", "prompt tokens", "of these cached", "output tokens", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    for g in found.groups:
        counts = (f"{n:,}" for n in (g.rows, g.tokens_in, g.tokens_cached, g.tokens_out))
        table.add_row(escape(g.purpose), escape(g.engine), g.outcome, *counts, f"{g.seconds / 3600:.1f}")
    console.print(table)
    if found.oldest is not None and found.newest is not None:
        typer.echo(f"oldest {_format_time(found.oldest)}, newest {_format_time(found.newest)}")


def _format_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _format_megabytes(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MB"
