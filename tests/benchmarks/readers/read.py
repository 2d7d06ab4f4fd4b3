"""What every reader says of a row: its final text, the part it trains on, images and frames. Needs Pillow and numpy."""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageStat

MOST_DIFFERENT = 3.0
"""Maximum mean absolute difference (of 255) of two pictures that count as the same: JPEGs may be saved again."""
MOST_DIFFERENT_RESIZED = 12.0
"""The same where a reader shows another size: other frames of a recording differ by 40 and more."""


@dataclass(frozen=True)
class Read:
    """A row as the model would see it."""

    text: str
    """After the chat template, each image one `<|image_pad|>` in its place, each pair of frames one `<|video_pad|>`."""
    trained: str | None
    """The tokens that count towards the loss, as text; None where the reader leaves that to others."""
    images: tuple[str, ...]
    """The pixels, in order."""
    videos: tuple[tuple[str, ...], ...] = ()
    """The pixels of the frames of each recording."""


def pixels(image: Image.Image) -> str:
    """An image's size and RGB values as text."""
    packed = base64.b64encode(zlib.compress(image.convert("RGB").tobytes(), 1)).decode()
    return f"{image.width} {image.height} {packed}"


def unpack(text: str) -> Image.Image:
    """The image of which `pixels` made the text."""
    width, height, packed = text.split()
    return Image.frombytes("RGB", (int(width), int(height)), zlib.decompress(base64.b64decode(packed)))


def unfold(patches: Any, grids: Any, processor: Any) -> tuple[tuple[str, ...], ...]:
    """The pixels of each recording's frames, from the patches that the model would get."""
    patches, grids, side, merge = np.asarray(patches), np.asarray(grids), processor.patch_size, processor.merge_size
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (processor.image_mean, processor.image_std))
    found: list[tuple[str, ...]] = []
    start = 0
    for pairs, rows, columns in grids.tolist():
        shape = (pairs, rows // merge, columns // merge, merge, merge, 3, 2, side, side)
        piece = patches[start : start + pairs * rows * columns].reshape(shape)
        frames = piece.transpose(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(2 * pairs, 3, rows * side, columns * side)
        values = ((frames * std + mean) * 255).round().clip(0, 255).astype(np.uint8)
        found.append(tuple(pixels(Image.fromarray(frame)) for frame in values.transpose(0, 2, 3, 1)))
        start += pairs * rows * columns
    return tuple(found)


def look_alike(one: Sequence[str], other: Sequence[str], *, at_any_size: bool = False) -> bool:
    """Whether two rows show the same pictures in the same order. At another size, edges are a little different."""
    return len(one) == len(other) and all(_is_alike(a, b, at_any_size) for a, b in zip(one, other, strict=True))


def _is_alike(one: str, other: str, at_any_size: bool) -> bool:
    if one == other:
        return True
    a, b = unpack(one), unpack(other)
    most = MOST_DIFFERENT
    if a.size != b.size:
        b = b.resize(a.size, Image.Resampling.BICUBIC)
        most = MOST_DIFFERENT_RESIZED if at_any_size else -1
    means = ImageStat.Stat(ImageChops.difference(a, b)).mean
    return sum(means) / len(means) <= most


def one_pad(text: str) -> str:
    """`text` with each run of pads of an image or of frames as one, without the tokens around Qwen3-VL's recordings.

    transformers from 5.10 on, and vLLM with it, keep `<|vision_start|>` and `<|vision_end|>` also around all pairs of
    frames of a recording; older ones and LLaMA-Factory do not.
    """
    short = re.sub(r"(<\|(?:image|video)_pad\|>)\1*", r"\1", text)
    pair = r"<[\d.]+ seconds><\|vision_start\|><\|video_pad\|><\|vision_end\|>"
    return re.sub(rf"<\|vision_start\|>((?:{pair})+)<\|vision_end\|>", r"\1", short)


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
    return version, [
        Read(row["text"], row["trained"], tuple(row["images"]), tuple(map(tuple, row["videos"]))) for row in rows
    ]
