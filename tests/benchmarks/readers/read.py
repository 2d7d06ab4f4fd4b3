"""What every reader says of a row: its final text, the part it trains on, and its images. Needs nothing but Pillow."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Read:
    """A row as the model would see it."""

    text: str
    """After the chat template, each image one `<|image_pad|>` in its place."""
    trained: str | None
    """The tokens that count towards the loss, as text; None where the reader leaves that to others."""
    images: tuple[str, ...]
    """Digests of the pixels, in order."""


def pixels(image: Image.Image) -> str:
    """Digest of an image's size and RGB values."""
    return sha256(f"{image.size}".encode() + image.convert("RGB").tobytes()).hexdigest()[:16]


def one_pad(text: str) -> str:
    """`text` with each image's run of pads as one."""
    return re.sub(r"(<\|image_pad\|>)+", r"\1", text)


def counted(ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The ids that count towards the loss."""
    return [token for token, label in zip(ids, labels, strict=True) if label != -100]


def write_read(file: Path, version: str, rows: Iterable[Read]) -> None:
    """Write the reader's version and its rows."""
    lines = [json.dumps(version), *(json.dumps(asdict(row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n", "utf-8")


def load_read(file: Path) -> tuple[str, list[Read]]:
    """What `write_read` wrote."""
    version, *rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return version, [Read(row["text"], row["trained"], tuple(row["images"])) for row in rows]
