# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
"""Images at the size the model will see them: one route of resizing for training and asking, and a cache of it."""

import hashlib
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from tasks.errors import EngineError, StorageError
from tasks.models.unanswered import BadMedia
from tasks.records import ImageRef
from tasks.storage.files import replacing

_RECIPE = 1
"""Part of a cached file's name; to be raised when the same source would be given other pixels."""
_JPEGS = ("JPEG", "MPO")
_ENDS = {".jpg": b"\xff\xd9", ".png": b"\0\0\0\0IEND\xaeB`\x82"}
"""What a whole file of each kind ends with."""
_MAX_RATIO = 200
"""Of an image's sides; smart_resize refuses more."""


class TooThin(BadMedia):
    """An image so long and thin that the model's patches can't cover it: a fault of its item alone."""


def resized_sides(image: ImageRef, *, min_pixels: int, max_pixels: int, patch_size: int = 14) -> tuple[int, int]:
    """Return width and height in pixels at which the model sees an image: multiples of two patches, area within bounds.

    The rule is Qwen2-VL's smart_resize, as published in qwen_vl_utils; it is repeated here because importing that
    package loads torch and torchvision, 12 CPU seconds, which commands that read only images' sizes need not wait for.
    Raises TooThin, naming the file, for sides over 200 to 1 and for an area that has fewer than one patch across.
    """
    factor = 2 * patch_size
    height, width = image.height, image.width
    if max(height, width) > _MAX_RATIO * min(height, width):
        raise TooThin(f"{image.path}: {width}×{height} pixels: the longer side is over {_MAX_RATIO} times the shorter")
    sides = [max(factor, round(side / factor) * factor) for side in (height, width)]
    if sides[0] * sides[1] > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        sides = [math.floor(side / shrink / factor) * factor for side in (height, width)]
    elif sides[0] * sides[1] < min_pixels:
        enlarge = math.sqrt(min_pixels / (height * width))
        sides = [math.ceil(side * enlarge / factor) * factor for side in (height, width)]
    if not (sides[0] and sides[1]):
        raise TooThin(f"{image.path}: {width}×{height} pixels: too thin for {max_pixels} pixels in all")
    return sides[1], sides[0]


def open_images(
    images: Sequence[ImageRef], *, min_pixels: int, max_pixels: int, patch_size: int = 14
) -> list[Image.Image] | None:
    """Decode images: upright (EXIF), RGB, sides multiples of two patches, area between the bounds; None for none.

    The same pixels as from an ImageCache, made anew each time. qwen_vl_utils and transformers resize slightly
    differently (mean 0.0014, at most 0.18 of normalised pixel values), so everything goes through qwen_vl_utils here
    and the processors are told not to resize. Raises OSError, naming the file, when it can't be read, and TooThin
    when it can't be resized.
    """
    bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
    opened: list[Image.Image] = []
    for image in images:
        picture, suffix = _resized(image, _source(image), **bounds)
        opened.append(picture if suffix == ".png" else _decoded(_encoded(picture, suffix)))
    return opened or None


@dataclass(frozen=True)
class ImageCache:
    """Images as the model sees them, each made once per digest, bounds and patch size, under `folder`.

    A file's first folder is the digest's first two digits. PNG where the source was lossless, JPEG (quality 95, full
    colour resolution) where it was a JPEG: a quarter of the size, and decoded in a third of the time. Files are moved
    into place whole, so threads, processes and runs may share a folder; two that want the same new image both make it.
    """

    folder: Path

    def file(self, image: ImageRef, *, min_pixels: int, max_pixels: int, patch_size: int = 14) -> Path:
        """The pre-resized image's file, made if it isn't there whole.

        Raises OSError, naming the file, when the source can't be read or is no longer what was read on the way in;
        TooThin when it can't be resized; EngineError when the cache can't be written.
        """
        stem = self.folder / image.sha256[:2] / f"{image.sha256}-{min_pixels}-{max_pixels}-{patch_size}-{_RECIPE}"
        for suffix in _ENDS:
            if _is_whole(path := stem.with_name(stem.name + suffix)):
                return path
        source = _source(image)
        # else what the file holds now would stand under the old digest, for every later run
        if hashlib.sha256(source).hexdigest() != image.sha256:
            raise OSError(f"{image.path}: changed since it was read")
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
        picture, suffix = _resized(image, source, **bounds)
        return _written(stem.with_name(stem.name + suffix), _encoded(picture, suffix))

    def open(
        self, images: Sequence[ImageRef], *, min_pixels: int, max_pixels: int, patch_size: int = 14
    ) -> list[Image.Image] | None:
        """The images in order, decoded from their cached files, RGB; None for none. Raises as `file` does."""
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
        return [self._open(image, bounds) for image in images] or None

    def _open(self, image: ImageRef, bounds: dict[str, int]) -> Image.Image:
        path = self.file(image, **bounds)
        try:
            return _decoded(path.read_bytes())
        except Exception:  # a decoder raises whatever its arithmetic runs into on broken bytes
            path.unlink(missing_ok=True)
            return _decoded(self.file(image, **bounds).read_bytes())


def prepare(
    cache: ImageCache, images: Sequence[ImageRef], *, min_pixels: int, max_pixels: int, patch_size: int = 14
) -> int:
    """Make each image's file in `cache` unless it is there, and return how many could not be made.

    Raises EngineError when the cache can't be written.
    """
    faults = 0
    for image in images:
        try:
            cache.file(image, min_pixels=min_pixels, max_pixels=max_pixels, patch_size=patch_size)
        except (OSError, TooThin):  # the engine meets it again, and says so of its item
            faults += 1
    return faults


def _source(image: ImageRef) -> bytes:
    try:
        return Path(image.path).read_bytes()
    except OSError as error:
        raise OSError(f"{image.path}: cannot be read: {error.strerror or error}") from error


def _resized(image: ImageRef, source: bytes, **bounds: int) -> tuple[Image.Image, str]:
    """The picture as the model sees it, and the kind of file that keeps it."""
    resized_sides(image, **bounds)
    try:
        with Image.open(io.BytesIO(source)) as file:
            # qwen_vl_utils ignores the orientation that phones write, and transparency outside of RGBA
            upright = ImageOps.exif_transpose(file).convert("RGBA" if file.has_transparency_data else "RGB")
            suffix = ".jpg" if file.format in _JPEGS else ".png"
    except Exception as error:
        raise OSError(f"{image.path}: cannot be decoded: {error}") from error
    from qwen_vl_utils import fetch_image  # here, because it loads torch and torchvision

    patch_size = bounds.pop("patch_size")
    element: dict[str, Any] = {"image": upright, **bounds}
    return fetch_image(element, image_patch_size=patch_size), suffix


def _encoded(picture: Image.Image, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".jpg":
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(buffer, "PNG", compress_level=1)  # level 6: half as long again, and no smaller on screenshots
    return buffer.getvalue()


def _decoded(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def _is_whole(path: Path) -> bool:
    end = _ENDS[path.suffix]
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:
        return False


def _written(path: Path, data: bytes) -> Path:
    # no fsync: what a power cut tears is made anew, and it would cost as much as the encoding
    try:
        with replacing(path, sync=False) as temporary:
            temporary.write_bytes(data)
    except (OSError, StorageError) as error:
        folder = path.parent.parent
        raise EngineError(f"the image cache {folder} cannot be written: {error}; name another folder") from error
    return path
