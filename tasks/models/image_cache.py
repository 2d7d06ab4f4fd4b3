"""Resize images to the size that the model sees, the same for training and for asking, and cache the results."""

import hashlib
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tasks.errors import EngineError, StorageError
from tasks.items.pixels import choose_suffix, encode_picture, render_pixels
from tasks.media import BoxForm, ImagePart, ImageRef, VideoRef
from tasks.models.qwen_vl import MERGE
from tasks.models.unanswered import BadMedia
from tasks.prompts.boxes import Grid
from tasks.records import Request
from tasks.storage.files import replace_file

_RECIPE = 2
"""Part of a cached file's name; raise it when resizing changes, so that old files are not used."""
_ENDS = {".jpg": b"\xff\xd9", ".png": b"\0\0\0\0IEND\xaeB`\x82"}
"""The last bytes of a complete file of each kind."""
_MAX_RATIO = 200
"""Maximum ratio of an image's sides; smart_resize refuses more."""


class Undecodable(BadMedia):
    """The content of an image file is not an image that can be decoded."""


class Changed(BadMedia):
    """An image file has another content than when the manifest was read."""


class TooThin(BadMedia):
    """An image is too long and thin to be divided into the model's patches."""


def compute_sides(image: ImageRef, *, min_pixels: int, max_pixels: int, patch_size: int) -> tuple[int, int]:
    """Return the width and height at which the model sees an image: multiples of `MERGE` patches, area within bounds.

    The rule is that of smart_resize in qwen_vl_utils. It is repeated here because importing that package loads torch
    and torchvision, which takes 12 CPU seconds; a run whose models are asked over HTTP does without them. Raises
    TooThin, naming the file, if one side is over 200 times the other, or if the shorter side would shrink to nothing.
    """
    factor = MERGE * patch_size
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
        raise TooThin(f"{image.path}: {width}×{height} pixels: too thin to be shrunk to {max_pixels} pixels in all")
    return sides[1], sides[0]


def compute_grids(images: Sequence[ImageRef], form: BoxForm, **bounds: int) -> list[Grid] | None:
    """Return the sides at which a model sees images, to which its boxes refer; None if these are in thousandths.

    `bounds` are those of `compute_sides`, which may raise TooThin.
    """
    return [compute_sides(image, **bounds) for image in images] if form.in_pixels else None


def list_sides(request: Request, shown: Request, patch_size: int) -> tuple[tuple[int, int] | None, ...]:
    """Return the sides at which a model sees each image of `request`, which was shortened to `shown`.

    An image that was left out, with its whole turn, has None. Empty for a request without boxes, which needs no sides.
    """
    if request.boxes is None:
        return ()
    bounds = {"min_pixels": shown.min_pixels, "max_pixels": shown.max_pixels, "patch_size": patch_size}
    turns = {part.turn for part in shown.parts}
    images = [part for part in request.parts if isinstance(part, ImagePart)]
    return tuple(compute_sides(part.image, **bounds) if part.turn in turns else None for part in images)


def open_images(
    images: Sequence[ImageRef], *, min_pixels: int, max_pixels: int, patch_size: int
) -> list[Image.Image] | None:
    """Return the images decoded, upright (EXIF), resized and in RGB; None if `images` is empty.

    The pixels are the same as those of an ImageCache, but nothing is stored. qwen_vl_utils and transformers resize
    slightly differently (by 0.0014 on average and up to 0.18 in normalised pixel values). So all images are resized
    here, as qwen_vl_utils does it, and the processors do not resize. Raises OSError, naming the file, when an image
    cannot be read now, Undecodable when its content is bad, and TooThin when it cannot be resized.
    """
    bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
    opened: list[Image.Image] = []
    for image in images:
        picture, suffix = _resize(image, _read_source(image), **bounds)
        opened.append(picture if suffix == ".png" else _decode(encode_picture(picture, suffix)))
    return opened or None


@dataclass(frozen=True)
class ImageCache:
    """Resized images in `folder`, one file per source digest, pixel bounds and patch size.

    Subfolders are named after the first two digits of the digest. A file is a PNG or, if its source is a JPEG, a JPEG
    (quality 95, full colour resolution), which takes a quarter of the space and a third of the time to decode. Files
    are replaced atomically, so threads, processes and runs may share a folder.
    """

    folder: Path

    def file(self, image: ImageRef, *, min_pixels: int, max_pixels: int, patch_size: int) -> Path:
        """Return the path of the resized image's file; write the file first unless it exists and is complete.

        Raises OSError, naming the source, when it cannot be read now; Undecodable, Changed or TooThin when its content
        cannot be used; EngineError when the cache cannot be written.
        """
        stem = self.folder / image.sha256[:2] / f"{image.sha256}-{min_pixels}-{max_pixels}-{patch_size}-{_RECIPE}"
        for suffix in _ENDS:
            if _is_whole(path := stem.with_name(stem.name + suffix)):
                return path
        source = _read_source(image)
        # otherwise the new content would be cached under the old digest, for all later runs
        if hashlib.sha256(source).hexdigest() != image.sha256:
            raise Changed(f"{image.path}: has changed since it was read; start the run again")
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
        picture, suffix = _resize(image, source, **bounds)
        return _write(stem.with_name(stem.name + suffix), encode_picture(picture, suffix))

    def open(
        self, images: Sequence[ImageRef], *, min_pixels: int, max_pixels: int, patch_size: int
    ) -> list[Image.Image] | None:
        """Return the resized images in input order, as RGB; None if `images` is empty. Raises what `file` raises."""
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
        return [self._open(image, bounds) for image in images] or None

    def frame_files(self, video: VideoRef, *, min_pixels: int, max_pixels: int, patch_size: int) -> list[Path]:
        """Return the paths of the resized frames' files; raise what `file` raises, naming the recording too."""
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
        return [self._frame_file(video, i, bounds) for i in range(len(video.frames))]

    def open_frames(
        self, videos: Sequence[VideoRef], *, min_pixels: int, max_pixels: int, patch_size: int
    ) -> list[list[Image.Image]] | None:
        """Return the resized frames of each recording, as RGB; None if there are none. Raises as `frame_files` does."""
        bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
        for video in videos:
            self.frame_files(video, **bounds)
        return [[self._open(frame, bounds) for frame in video.frames] for video in videos] or None

    def _frame_file(self, video: VideoRef, number: int, bounds: dict[str, int]) -> Path:
        try:
            return self.file(video.frames[number], **bounds)
        except (OSError, BadMedia) as error:
            raise type(error)(f"{video.path}, frame at {video.times[number]:g} s: {error}") from error

    def _open(self, image: ImageRef, bounds: dict[str, int]) -> Image.Image:
        path = self.file(image, **bounds)
        try:
            return _decode(path.read_bytes())
        except Exception:  # a decoder may raise anything on broken bytes
            path.unlink(missing_ok=True)
            return _decode(self.file(image, **bounds).read_bytes())


def fill_cache(
    cache: ImageCache, images: Sequence[ImageRef], *, min_pixels: int, max_pixels: int, patch_size: int
) -> int:
    """Write each image to `cache` unless it is there; return how many images could not be read or resized.

    Raises EngineError when the cache cannot be written.
    """
    faults = 0
    for image in images:
        try:
            cache.file(image, min_pixels=min_pixels, max_pixels=max_pixels, patch_size=patch_size)
        except (OSError, BadMedia):  # the engine fails on it again and reports it for its item
            faults += 1
    return faults


def _read_source(image: ImageRef) -> bytes:
    try:
        return Path(image.path).read_bytes()
    except OSError as error:
        raise OSError(f"{image.path}: cannot be read: {error.strerror or error}") from error


def _resize(image: ImageRef, source: bytes, **bounds: int) -> tuple[Image.Image, str]:
    """Return the picture as the model sees it, and the suffix of the file to store it in."""
    sides = compute_sides(image, **bounds)
    try:
        with Image.open(io.BytesIO(source)) as file:
            upright = render_pixels(file)
            suffix = choose_suffix(file)
    except Exception as error:
        if _is_of_machine(error):
            raise
        raise Undecodable(f"{image.path}: cannot be decoded: {error}") from error
    return upright.resize(sides, Image.Resampling.BICUBIC), suffix


def _is_of_machine(error: Exception) -> bool:
    """Return whether the machine failed and not the image. Decoders raise OSError too, but without an error number."""
    return isinstance(error, MemoryError | ImportError) or (isinstance(error, OSError) and error.errno is not None)


def _decode(data: bytes) -> Image.Image:
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


def _write(path: Path, data: bytes) -> Path:
    # no fsync: it costs as much as encoding, and a file torn by a power cut is written again
    try:
        with replace_file(path, sync=False) as temporary:
            temporary.write_bytes(data)
    except (OSError, StorageError) as error:
        folder = path.parent.parent
        raise EngineError(
            f"the image cache {folder} cannot be written: {error}; free disk space, or set `images` to another folder"
        ) from error
    return path
