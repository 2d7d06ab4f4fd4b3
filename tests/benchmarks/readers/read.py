"""What every reader says of a row: its final text, the part it trains on, and its images. Needs nothing but Pillow."""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

MOST_DIFFERENT = 3.0
"""Maximum mean absolute difference (of 255) of two pictures that count as the same: JPEGs may be saved again."""


@dataclass(frozen=True)
class Read:
    """A row as the model would see it."""

    text: str
    """After the chat template, each image one `<|image_pad|>` in its place."""
    trained: str | None
    """The tokens that count towards the loss, as text; None where the reader leaves that to others."""
    images: tuple[str, ...]
    """The pixels, in order."""


def pixels(image: Image.Image) -> str:
    """An image's size and RGB values as text."""
    packed = base64.b64encode(zlib.compress(image.convert("RGB").tobytes(), 1)).decode()
    return f"{image.width} {image.height} {packed}"


def unpack(text: str) -> Image.Image:
    """The image of which `pixels` made the text."""
    width, height, packed = text.split()
    return Image.frombytes("RGB", (int(width), int(height)), zlib.decompress(base64.b64decode(packed)))


def look_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two rows show the same pictures in the same order."""
    return len(one) == len(other) and all(map(_is_alike, one, other))


def _is_alike(one: str, other: str) -> bool:
    if one == other:
        return True
    a, b = unpack(one), unpack(other)
    if a.size != b.size:
        return False
    means = ImageStat.Stat(ImageChops.difference(a, b)).mean
    return sum(means) / len(means) <= MOST_DIFFERENT


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
