"""What the card's drawn items show and say, found among a run's samples."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from tasks.dataset.decisions import LeftOutReason
from tasks.records import Part, Split
from tasks.report.card.rows import rows_of

_PARTS: TypeAdapter[tuple[Part, ...]] = TypeAdapter(tuple[Part, ...])
_WHOSE = {
    "rationales": Split.LABELLED,
    "correction": Split.LABELLED,
    "pseudo_labels": Split.UNLABELLED,
    LeftOutReason.WAITING.value: Split.LABELLED,
    LeftOutReason.UNREASONED.value: Split.LABELLED,
    LeftOutReason.UNTRUSTED.value: Split.UNLABELLED,
}
"""The set whose items a stage goes through, or emit leaves out for a reason; other items may be of either."""


class Content(NamedTuple):
    """What an item shows and says, and where it is from."""

    split: Split
    source: str
    """Manifest file."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Contents:
    """Items by id, which one of the labelled set and one of the pool may share."""

    items: dict[str, tuple[Content, ...]]

    def of(self, row: dict[str, Any], stage: str, reason: str = "") -> tuple[Part, ...]:
        """The parts of the item of a row that was drawn from `stage`, or that was left out there for `reason`.

        Empty where it was refused on the way in, or where two items have its id and nothing tells which one it is.
        """
        if stage.startswith("samples/"):
            return ()
        split, source = _WHOSE.get(stage) or _WHOSE.get(reason), row.get("source")
        found = [c for c in self.items.get(row["sample_id"], ()) if split in (None, c.split)]
        parts = {c.parts for c in found if source in (None, c.source)}
        return parts.pop() if len(parts) == 1 else ()


def read_contents(samples: Path, ids: Collection[str]) -> Contents:
    """The items of those ids, in one pass over each file of samples."""
    found: defaultdict[str, tuple[Content, ...]] = defaultdict(tuple)
    for split in (Split.LABELLED, Split.UNLABELLED) if ids else ():
        for row in rows_of(samples / split / "kept.parquet", "id", "source", "parts"):
            if row["id"] in ids:
                found[row["id"]] += (Content(split, row["source"], _PARTS.validate_json(row["parts"])),)
    return Contents(dict(found))


def of_pool(samples: Path, items: set[tuple[str, str]]) -> int:
    """How many of these items (source, id) are of the pool and not of the labelled set."""
    for split in (Split.UNLABELLED, Split.LABELLED) if items else ():
        rows = rows_of(samples / split / "kept.parquet", "source", "id")
        found = {item for row in rows if (item := (row["source"], row["id"])) in items}
        items = found if split is Split.UNLABELLED else items - found
    return len(items)
