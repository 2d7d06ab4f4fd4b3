"""`labelstill init`: write a pack and a run.yaml for labelled data of any usual kind."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Column = Annotated[str | None, typer.Option(metavar="COLUMN", show_default=False)]


def init_command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A manifest, or a folder of labelled items")],
    images: Annotated[
        Path | None, typer.Argument(metavar="[IMAGES]", help="The folder of the images, if it is not near DATA")
    ] = None,
    label: Column = None,
    text: Column = None,
    image: Column = None,
    video: Column = None,
    id: Column = None,
) -> None:
    """Find the columns and images of labelled data, and write pack/ and run.yaml into the working folder.

    DATA is JSON, JSON Lines, CSV or Parquet, or a folder: of such files, with a sub-folder per label, a Hugging Face
    data set, a set for LLaMA-Factory or ms-swift; or a Label Studio export. Nothing is overwritten. The options name
    columns.
    """
    from flows.config import DistillConfig
    from tasks.start.starter import Caches, start

    fields = DistillConfig.model_fields
    caches = Caches(fields["images"].default, fields["texts"].default)
    wanted = {"id": id, "instruction": text, "image": image, "video": video, "output": label}
    for line in start(data, images, Path(), caches, wanted, _ask if sys.stdin.isatty() else None):
        typer.echo("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))


def _ask(question: str, answers: Sequence[str]) -> str:
    while True:
        chosen: str = typer.prompt(f"{question} ({', '.join(answers)})", default=answers[0])
        if chosen in answers:
            return chosen
