"""`labelstill diff`: what differs between two versions of an emitted set, and why."""

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
"""Pairs of old and new label that are listed; the file has them all."""
_LONGEST = 80
"""Characters of a label or a reason in the table: a caption may be a paragraph."""

_SIDE = "A run's folder (its latest version), an emit folder, a Parquet file, or a version's digest"


def diff_command(
    before: Annotated[str | None, typer.Argument(metavar="A", help=_SIDE, show_default=False)] = None,
    after: Annotated[str | None, typer.Argument(metavar="B", help="The same", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("--in", metavar="OUTPUT", help="The run's folder whose versions digests mean")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write every change: .jsonl or .csv", show_default=False)
    ] = None,
    show: Annotated[int, typer.Option(metavar="N", min=0, help="At most this many changed items are listed")] = 50,
) -> None:
    """What changed from A to B: items added, removed, relabelled, with another reason, moved; and why.

    With --in OUTPUT alone: what OUTPUT's latest version changed in the one before it. B left out: A against the latest.
    A and B may be beginnings of digests (OUTPUT/versions/versions.jsonl lists them), also after emit was run again.
    """
    from tasks.dataset.diff import ChangeCounts, compare_snapshots, open_change_file
    from tasks.dataset.versions import open_snapshot

    names = _names(before, after, output)
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
        _say(f"{counts.items:,} changed items written to {to}")


def _names(before: str | None, after: str | None, output: Path | None) -> tuple[str, str]:
    """The two sides as named, or what `output`'s log says where one is left out."""
    from tasks.dataset.versions import FOLDER, LOG, read_versions

    if before is not None and after is not None:
        return before, after
    if output is None:
        raise ManifestError("name two versions, A and B, or give a run's folder with --in OUTPUT")
    log = read_versions(output)
    if not log or (before is None and log[-1].parent is None):
        raise ManifestError(f"{output / FOLDER / LOG}: has {len(log)} versions, nothing to compare; run emit again")
    return before or str(log[-1].parent), log[-1].version


def _show(a: "Snapshot", b: "Snapshot", counts: "ChangeCounts", first: "list[Change]") -> None:
    for letter, side in (("A", a), ("B", b)):
        _say(f"{letter}: {side.rows:,} examples, version {side.version[:12]}: {side.name}")
    if not counts.items:
        _say("nothing differs" if a.version == b.version else "no item differs")
        return
    table = Table("what", "items")
    for kind, count in counts.kinds.most_common():
        table.add_row(kind, f"{count:,}")
    console.print(table)
    if counts.relabelled:
        pairs = Table("old label", "new label", "items")
        for (old, new), count in counts.relabelled.most_common(_PAIRS):
            pairs.add_row(_short(old), _short(new), f"{count:,}")
        console.print(pairs)
        if len(counts.relabelled) > _PAIRS:
            _say(f"… and {len(counts.relabelled) - _PAIRS:,} more pairs")
    if first:
        console.print(_items(first))
    if counts.items > len(first):
        _say(f"… and {counts.items - len(first):,} more items; --to FILE writes all, --show N lists more")


def _items(changes: "list[Change]") -> Table:
    table = Table()
    for name in ("item", "what", "before", "after"):
        table.add_column(name, overflow="fold")
    for c in changes:
        table.add_row(escape(c.id), ", ".join(c.kinds), _side(c.before), _side(c.after))
    return table


def _side(side: "Side | None") -> str:
    if side is None:
        return ""
    lines = [f"[bold]{_short(side.label)}[/] ({side.origin}, {side.subset})"]
    return "\n".join([*lines, *([_short(side.reason)] if side.reason else []), f"[dim]{_short(side.why)}[/]"])


def _short(text: str) -> str:
    return escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
