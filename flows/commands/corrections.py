"""`labelstill corrections`: put a patch of changed labels on a manifest, take it back, look at it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from tasks.correction.patches import Change

app = typer.Typer(no_args_is_help=True, help="A patch of changed labels: apply it to a manifest, revert it, show it.")
console = Console()

PatchPath = Annotated[Path, typer.Argument(metavar="PATCH", help="corrections.jsonl of a run")]
OutPath = Annotated[Path, typer.Option("--to", metavar="OUT", help="The copy, in MANIFEST's format")]


@app.command()
def apply(
    patch: PatchPath,
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help=".json, .jsonl, .csv or .parquet")],
    to: OutPath,
) -> None:
    """Write a copy of a manifest with the patch's labels, without the items it drops; all or nothing.

    Beside the copy, OUT.undo.jsonl keeps what `revert` needs.
    """
    from tasks.correction.patches import apply_patch, undo_path

    done = apply_patch(patch, manifest, to)
    _say(f"{done.relabelled:,} items relabelled, {done.dropped:,} removed: {done.out}")
    _say(f"what revert needs: {undo_path(done.out)}")


@app.command()
def revert(
    patch: PatchPath,
    manifest: Annotated[Path, typer.Argument(metavar="COPY", help="What apply wrote")],
    to: OutPath,
    undo: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What apply left beside COPY, if it lies elsewhere now")
    ] = None,
) -> None:
    """Write what the manifest was before the patch: JSON and CSV byte for byte, Parquet row for row; all or nothing."""
    from tasks.correction.patches import revert_patch

    done = revert_patch(patch, manifest, to, undo)
    _say(f"{done.relabelled:,} items have their given label again, {done.dropped:,} are back: {done.out}")


@app.command()
def show(
    patch: PatchPath,
    first: Annotated[int, typer.Option(metavar="N", min=0, help="At most this many changes are listed")] = 50,
) -> None:
    """List a patch's changes: who decided, how sure, and why."""
    from tasks.correction.patches import read_patch

    changes = read_patch(patch)
    if changes and first:
        console.print(_table(changes[:first]))
    if len(changes) > first:
        _say(f"… and {len(changes) - first:,} more; --first N lists more")
    dropped = sum(change.label is None for change in changes)
    reviewed = sum(change.reviewed for change in changes)
    _say(
        f"{len(changes) - dropped:,} items to relabel, {dropped:,} to remove; {reviewed:,} of them by a person: {patch}"
    )


def _table(changes: "list[Change]") -> Table:
    table = Table()
    for name in ("item", "given", "new", "by"):
        table.add_column(name, overflow="fold")
    for name in ("p given", "p new", "p neither"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for c in changes:
        new = "[red]removed[/]" if c.label is None else escape(c.label)
        figures = ("" if p is None else f"{p:.2f}" for p in (c.p_given, c.p_candidate, c.p_neither))
        table.add_row(escape(c.id), escape(c.given), new, "person" if c.reviewed else "models", *figures, escape(c.why))
    return table


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
