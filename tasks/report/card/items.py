"""Read the texts and pictures of the items that a card shows."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import TypeAdapter

from tasks.dataset.decisions import LeftOutReason
from tasks.media import Box, ImagePart, ImageRef, Part, TextPart, VideoPart, VideoRef
from tasks.prompts.turns import IMAGE_TOKEN, VIDEO_TOKEN
from tasks.records import Split
from tasks.report.card.rows import Row, read_columns
from tasks.report.pictures import Picture, make_strip, shrink_image
from tasks.storage.html import cut_text

_PICTURES = 3
"""Maximum number of pictures that are shown per item."""
_ITEM_CHARACTERS = 1200
_PARTS: TypeAdapter[tuple[Part, ...]] = TypeAdapter(tuple[Part, ...])
_IMAGES: TypeAdapter[tuple[ImageRef, ...]] = TypeAdapter(tuple[ImageRef, ...])
_VIDEOS: TypeAdapter[tuple[VideoRef, ...]] = TypeAdapter(tuple[VideoRef, ...])
_BOXES: TypeAdapter[tuple[Box, ...]] = TypeAdapter(tuple[Box, ...])
_STRIPS = 2
"""Maximum number of recordings that are shown per item."""
_MARKS = {IMAGE_TOKEN: "picture", VIDEO_TOKEN: "recording"}
_SPLITS = {
    "rationales": Split.LABELLED,
    "correction": Split.LABELLED,
    "pseudo_labels": Split.UNLABELLED,
    LeftOutReason.WAITING.value: Split.LABELLED,
    LeftOutReason.UNREASONED.value: Split.LABELLED,
    LeftOutReason.UNTRUSTED.value: Split.UNLABELLED,
}
"""Maps stage to the split that it processes, and drop reason to the split of the items left out for it."""


class Content(NamedTuple):
    """The parts of an item and where they were read from."""

    split: Split
    source: str
    """The manifest file that the item is from."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Contents:
    """Maps item id to the contents of the items with this id. A labelled item and a pool item may share an id."""

    items: dict[str, tuple[Content, ...]]

    def find(self, row: Row, stage: str, reason: str = "") -> tuple[Part, ...]:
        """Return the parts of the item that `row` describes. `stage` and `reason` say where the row comes from.

        Returns no parts if the item was refused when it was read, or if two items share its id and the row does not say
        which one is meant.
        """
        if stage.startswith("samples/"):
            return ()
        split = _SPLITS.get(stage) or _SPLITS.get(reason)
        source = row.get("source")
        found = [c for c in self.items.get(row["sample_id"], ()) if split in (None, c.split)]
        parts = {c.parts for c in found if source in (None, c.source)}
        return parts.pop() if len(parts) == 1 else ()


def read_contents(samples: Path, ids: Collection[str]) -> Contents:
    """Read the contents of the items with these ids. Each file of samples is read only once."""
    found: defaultdict[str, tuple[Content, ...]] = defaultdict(tuple)
    for split in (Split.LABELLED, Split.UNLABELLED) if ids else ():
        for row in read_columns(samples / split / "kept.parquet", "id", "source", "parts"):
            if row["id"] in ids:
                found[row["id"]] += (Content(split, row["source"], _PARTS.validate_json(row["parts"])),)
    return Contents(dict(found))


@dataclass(frozen=True)
class ShownItem:
    """An item as the page shows it."""

    row: Row
    """The Parquet row about the item, with its label and reason."""
    pictures: tuple[Picture, ...]
    more_pictures: int
    """Number of pictures and recordings that are not shown."""
    strips: tuple[tuple[Picture, ...], ...]
    """Some frames of each recording that is shown."""
    text: list[tuple[str, str]]
    """The item's text in pieces, each with what follows it: a picture, a recording or nothing. Empty without words."""
    turns: list[dict[str, Any]]
    """The messages that a student is trained on, each with role and content."""
    tags: Sequence[str | None]


def show_item(row: Row, parts: Sequence[Part], *tags: str | None) -> ShownItem:
    """Return the row's item as the page shows it. Without `parts`, the row's conversation is shown instead."""
    turns = orjson.loads(row.get("messages") or "[]")
    text = "".join(p.text if isinstance(p, TextPart) else f"<{p.type}>" for p in parts)
    images = tuple(p.image for p in parts if isinstance(p, ImagePart))
    videos = tuple(p.video for p in parts if isinstance(p, VideoPart))
    if not parts:
        images = _IMAGES.validate_json(row.get("images") or "[]")
        videos = _VIDEOS.validate_json(row.get("videos") or "[]")
        text = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    found = re.split(f"({'|'.join(_MARKS)})", cut_text(text.strip(), _ITEM_CHARACTERS))
    pieces = [(piece, _MARKS.get(token, "")) for piece, token in zip(found[::2], [*found[1::2], ""], strict=True)]
    if not any(piece.strip() for piece, _ in pieces) and (images or videos or len(pieces) == 1):
        pieces = []
    boxes = _BOXES.validate_json(row.get("boxes") or "[]")
    pictures = tuple(
        shrink_image(image, boxes=[box for box in boxes if box.image == place])
        for place, image in enumerate(images[:_PICTURES])
    )
    strips = tuple(map(make_strip, videos[:_STRIPS]))
    more = len(images) - len(pictures) + len(videos) - len(strips)
    return ShownItem(row, pictures, more, strips, pieces, turns if parts else [], tags)
