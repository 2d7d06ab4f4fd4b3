"""Compare two versions of a training set item by item: what was added, removed or relabelled, and why.

The versions are compared in slices, so memory holds only the two tables and an index of matching rows.
"""

import csv
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from tasks.dataset.versions import Snapshot
from tasks.errors import ManifestError
from tasks.storage.files import replace_file

_SLICE = 50_000

pc: Any = pyarrow.compute  # its stubs lack the functions that are made at import


class ChangeKind(StrEnum):
    """What happened to an item between two versions."""

    ADDED = "added"
    REMOVED = "removed"
    RELABELLED = "relabelled"
    REREASONED = "re-reasoned"
    """The label is the same, but its reason was changed, added or removed."""
    REWORDED = "reworded"
    """Label and reason are the same, but the prompt, images or frames differ: the template or the item has changed."""
    MOVED = "moved"
    """The item moved from training to validation or back."""


@dataclass(frozen=True)
class Side:
    """An item in one of the two versions."""

    label: str
    reason: str
    origin: str
    why: str
    subset: str
    task: str
    source: str


@dataclass(frozen=True)
class Change:
    """An item that differs between the versions. `before` is None for an added item, `after` for a removed one."""

    id: str
    kinds: tuple[ChangeKind, ...]
    before: Side | None
    after: Side | None


def compare_snapshots(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Yield every item that differs: first the items of `before`, then the added items, both in their own order.

    Items are matched by their manifest and id. If a manifest occurs in one version only, because it was moved or
    renamed, its items are matched by the manifest's name and the id, or else by the id alone if it occurs once on both
    sides.
    """
    partner = _find_partners(before.table, after.table)
    matched = np.zeros(after.rows, dtype=bool)
    matched[partner[partner >= 0]] = True
    for start in range(0, before.rows, _SLICE):
        rows = np.arange(start, min(start + _SLICE, before.rows))
        both = partner[rows] >= 0
        yield from _compare_rows(before.table, after.table, rows, np.where(both, partner[rows], 0), both)
    added = np.flatnonzero(~matched)
    for start in range(0, len(added), _SLICE):
        some = after.table.take(added[start : start + _SLICE])
        for id, side in zip(some.column("sample_id").to_pylist(), _read_sides(some), strict=True):
            yield Change(id, (ChangeKind.ADDED,), None, side)


class ChangeCounts:
    """Counts changes."""

    def __init__(self) -> None:
        self.items = 0
        self.kinds: Counter[ChangeKind] = Counter()
        """Maps each kind of change to the number of items; an item may have several kinds."""
        self.relabelled: Counter[tuple[str, str]] = Counter()
        """Maps (old label, new label) to the number of items."""

    def add(self, change: Change) -> None:
        """Count one change."""
        self.items += 1
        self.kinds.update(change.kinds)
        if change.before and change.after and ChangeKind.RELABELLED in change.kinds:
            self.relabelled[change.before.label, change.after.label] += 1


@contextmanager
def open_change_file(path: Path) -> Generator[Callable[[Change], None]]:
    """Yield a function that writes one change to `path`, as JSON Lines or CSV depending on the file extension.

    The file appears only when the block ends without an error. A JSON row has `id`, `changes`, and the item `before`
    and `after` as objects; CSV has two columns per field, such as `label_before` and `label_after`. Raises
    ManifestError for any other extension.
    """
    if path.suffix not in (".jsonl", ".csv"):
        raise ManifestError(f"{path}: unknown file type; the name must end in .jsonl or .csv")
    names = [field.name for field in fields(Side)]
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)

        def write_line(change: Change) -> None:
            row = {"id": change.id, "changes": change.kinds, "before": change.before, "after": change.after}
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE).decode())

        def write_cells(change: Change) -> None:
            cells = [getattr(side, name) if side else "" for name in names for side in (change.before, change.after)]
            table.writerow([change.id, "+".join(change.kinds), *cells])

        if path.suffix == ".csv":
            table.writerow(["id", "changes", *(f"{name}_{side}" for name in names for side in ("before", "after"))])
        yield write_line if path.suffix == ".jsonl" else write_cells


# --- matching and comparing ----------------------------------------------------------------------------------


def _find_partners(before: Any, after: Any) -> NDArray[np.int64]:
    """Return, for each row of `before`, the index of the same item's row in `after`; -1 if there is none."""
    left, right = (t.select(["sample_id", "source"]).to_pandas().astype(str) for t in (before, after))
    partner = np.full(len(left), -1, dtype=np.int64)
    shared = set(left["source"]) & set(right["source"])
    for name_source in (lambda source: source, lambda source: source.rpartition("/")[2], lambda source: ""):
        keys = [rows["source"].map(name_source) + "\0" + rows["sample_id"] for rows in (left, right)]
        ours, theirs = (key[~key.duplicated(keep=False)] for key in keys)
        both = np.intersect1d(ours, theirs)
        places = pd.Series(ours.index, ours)[both]
        partner[places] = pd.Series(theirs.index, theirs)[both]
        left, right = (rows[~rows["source"].isin(shared)] for rows in (left.drop(places), right.drop(partner[places])))
    return partner


def _compare_rows(before: Any, after: Any, rows: Any, partners: Any, both: Any) -> Iterator[Change]:
    old, new = before.take(rows), after.take(partners[both])
    differ = {name: np.zeros(len(rows), dtype=bool) for name in ("label", "reason", "content", "subset")}
    there = old.filter(pa.array(both))
    for name, flags in differ.items():
        unequal = pc.not_equal(there.column(name).cast(pa.string()), new.column(name).cast(pa.string()))
        flags[both] = unequal.to_numpy()
    reasoned = differ["reason"] & ~differ["label"]
    reworded = differ["content"] & ~differ["label"] & ~differ["reason"]
    flagged = (
        (ChangeKind.RELABELLED, differ["label"]),
        (ChangeKind.REREASONED, reasoned),
        (ChangeKind.REWORDED, reworded),
    )
    flags = {ChangeKind.REMOVED: ~both, **dict(flagged), ChangeKind.MOVED: differ["subset"]}
    changed = np.flatnonzero(np.any(list(flags.values()), axis=0))
    position = np.cumsum(both) - 1
    olds = _read_sides(old.take(changed))
    news = _read_sides(new.take(position[changed[both[changed]]]))
    for row, id, side in zip(changed, old.column("sample_id").take(changed).to_pylist(), olds, strict=True):
        kinds = tuple(kind for kind, of in flags.items() if of[row])
        yield Change(id, kinds, side, next(news) if both[row] else None)


def _read_sides(table: Any) -> Iterator[Side]:
    columns = [table.column(field.name).to_pylist() for field in fields(Side)]
    return (Side(*values) for values in zip(*columns, strict=True))
