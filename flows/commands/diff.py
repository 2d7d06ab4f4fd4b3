"""`labelstill diff`: show what changed between two versions of a training set, and why."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.errors import ManifestError

if TYPE_CHECKING:
    from tasks.dataset.diff import Change, ChangeCounts, Side
    from tasks.dataset.versions import Snapshot

console = Console()

_PAIRS = 20
"""Maximum number of (old label, new label) pairs in the table. The file written with --to has all of them."""
_LONGEST = 80
"""Maximum length of a label or reason in the table, in characters. A caption may be a whole paragraph."""

_SIDE = "A run's folder (its latest version), an emit folder, a Parquet file, or a version's digest"


def diff_command(
    before: Annotated[str | None, typer.Argument(metavar="A", help=_SIDE, show_default=False)] = None,
    after: Annotated[str | None, typer.Argument(metavar="B", help="The same", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("--in", metavar="OUTPUT", help="The run's folder, to look up digests in")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write all changes to a .jsonl or .csv file", show_default=False),
    ] = None,
    show: Annotated[int, typer.Option(metavar="N", min=0, help="Most changed items to list")] = 50,
) -> None:
    """Show what changed from version A to version B (items, labels, reasons, subsets), and why.

    With only --in OUTPUT, compare OUTPUT's latest version with the one before it. Without B, compare A with the latest.
    OUTPUT/versions/versions.jsonl lists the versions' digests; for A and B, the beginning of a digest is enough.
    """
    from tasks.dataset.diff import ChangeCounts, compare_snapshots, open_change_file
    from tasks.dataset.versions import open_snapshot

    names = _choose_sides(before, after, output)
    counts = ChangeCounts()
    first: list[Change] = []
    with console.status("comparing"):
        a, b = (open_snapshot(name, output) for name in names)
        with open_change_file(to) if to else nullcontext(lambda change: None) as write:
            for change in compare_snapshots(a, b):
                counts.add(change)
                write(change)
                if len(first) < show:
                    first.append(change)
    _show(a, b, counts, first)
    if to:
        typer.echo(f"{counts.items:,} changed items written to {to}")


def _choose_sides(before: str | None, after: str | None, output: Path | None) -> tuple[str, str]:
    """Return the names of the two versions. Missing names are taken from the list of versions in `output`."""
    from tasks.dataset.versions import FOLDER, LOG, read_versions

    if before is not None and after is not None:
        return before, after
    if output is None:
        raise ManifestError("name two versions, A and B, or a run's folder with --in OUTPUT")
    log = read_versions(output)
    if not log or (before is None and log[-1].parent is None):
        raise ManifestError(
            f"{output / FOLDER / LOG}: has {len(log)} versions, so there is nothing to compare; a version is added "
            "when `labelstill run` or `relabel` changes the set"
        )
    return before or str(log[-1].parent), log[-1].version


def _show(a: "Snapshot", b: "Snapshot", counts: "ChangeCounts", first: "list[Change]") -> None:
    for letter, side in (("A", a), ("B", b)):
        typer.echo(f"{letter}: {side.rows:,} examples, version {side.version[:12]}: {side.name}")
    if not counts.items:
        typer.echo("nothing differs" if a.version == b.version else "no item differs")
        return
    table = Table("what", "items")
    for kind, count in counts.kinds.most_common():
        table.add_row(kind, f"{count:,}")
    console.print(table)
    if counts.relabelled:
        pairs = Table("old label", "new label", "items")
        for (old, new), count in counts.relabelled.most_common(_PAIRS):
            pairs.add_row(_shorten(old), _shorten(new), f"{count:,}")
        console.print(pairs)
        if len(counts.relabelled) > _PAIRS:
            typer.echo(f"… and {len(counts.relabelled) - _PAIRS:,} more pairs")
    if first:
        console.print(_make_items_table(first))
    if counts.items > len(first):
        typer.echo(f"… and {counts.items - len(first):,} more items; --to FILE writes all, --show N lists more")


def _make_items_table(changes: "list[Change]") -> Table:
    table = Table()
    for name in ("item", "what", "before", "after"):
        table.add_column(name, overflow="fold")
    for c in changes:
        table.add_row(escape(c.id), ", ".join(c.kinds), _format_side(c.before), _format_side(c.after))
    return table


def _format_side(side: "Side | None") -> str:
    if side is None:
        return ""
    lines = [f"[bold]{_shorten(side.label)}[/] ({side.origin}, {side.subset})"]
    return "\n".join([*lines, *([_shorten(side.reason)] if side.reason else []), f"[dim]{_shorten(side.why)}[/]"])


def _shorten(text: str) -> str:
    return escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")
