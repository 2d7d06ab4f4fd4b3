"""Read the texts and pictures of the items that a card shows."""

import base64
import io
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from PIL import Image
from pydantic import TypeAdapter

from tasks.dataset.decisions import LeftOutReason
from tasks.items.images import FORMATS
from tasks.items.pixels import render_pixels
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import ImagePart, ImageRef, Part, Split, TextPart
from tasks.report.card.rows import Row, read_columns
from tasks.storage.html import cut_text

_PICTURE_SIZE = (220, 330)
"""Maximum width and height. A picture has about 10 kB, so a page with a hundred of them can be sent by mail."""
_PICTURE_QUALITY = 68
_PICTURES = 3
"""Maximum number of pictures that are shown per item."""
_ITEM_CHARACTERS = 1200
_PARTS: TypeAdapter[tuple[Part, ...]] = TypeAdapter(tuple[Part, ...])
_IMAGES: TypeAdapter[tuple[ImageRef, ...]] = TypeAdapter(tuple[ImageRef, ...])
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
class Picture:
    """A small version of an image."""

    url: str
    """A `data:` URL with a WebP image, or empty if the image cannot be shown."""
    width: int
    height: int
    note: str
    """The size of the original image, or why it cannot be shown."""


@dataclass(frozen=True)
class ShownItem:
    """An item as the page shows it."""

    row: Row
    """The Parquet row about the item, with its label and reason."""
    pictures: tuple[Picture, ...]
    more_pictures: int
    """Number of pictures that are not shown."""
    text: list[str]
    """The item's text, split where its pictures are. Empty if it has no words."""
    turns: list[dict[str, Any]]
    """The messages that a student is trained on, each with role and content."""
    tags: Sequence[str | None]


def show_item(row: Row, parts: Sequence[Part], *tags: str | None) -> ShownItem:
    """Return the row's item as the page shows it. Without `parts`, the row's conversation is shown instead."""
    turns = orjson.loads(row.get("messages") or "[]")
    text = "".join(p.text if isinstance(p, TextPart) else IMAGE_TOKEN for p in parts)
    images = tuple(p.image for p in parts if isinstance(p, ImagePart))
    if not parts:
        images = _IMAGES.validate_json(row.get("images") or "[]")
        text = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
    pieces = cut_text(text.strip(), _ITEM_CHARACTERS).split(IMAGE_TOKEN)
    if not any(piece.strip() for piece in pieces) and (images or len(pieces) == 1):
        pieces = []
    pictures = tuple(map(shrink_image, images[:_PICTURES]))
    return ShownItem(row, pictures, len(images) - len(pictures), pieces, turns if parts else [], tags)


def shrink_image(image: ImageRef) -> Picture:
    """Return a small, upright picture on white. If the file cannot be read, the picture has no URL but a note."""
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            file.draft("RGB", _PICTURE_SIZE)  # a JPEG is decoded no larger than needed
            picture = render_pixels(file)
            picture.thumbnail(_PICTURE_SIZE, Image.Resampling.LANCZOS)
    except Exception as error:  # decoders raise all kinds of errors on broken bytes
        return Picture("", 0, 0, f"{image.path}: {error}")
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_PICTURE_QUALITY)
    url = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(url, *picture.size, f"{image.width} × {image.height} pixels")
