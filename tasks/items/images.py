"""Check, measure and hash each distinct image file once.

Decoded images are not kept; each result is a `records.ImageRef`.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import PIL
from PIL import ExifTags, Image, UnidentifiedImageError

from tasks.items.known_files import Checked, KnownFiles, Seen, digest_code, restore_image
from tasks.items.refusals import Reason, Unusable
from tasks.media import ImageRef

# Only the usual formats of data sets: Pillow also opens formats that start other programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_UNSHOWN_MODES = ("I", "F", "LAB")
"""Pixel modes that do not define black and white, or that Pillow cannot convert to RGB."""
MAX_PIXELS = 50_000_000
"""Maximum pixels of an image file: decoding a larger one would take too much memory."""
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_SIDEWAYS = (5, 6, 7, 8)
_MAX_THREADS = 16
"""Each may hold one decoded image of MAX_PIXELS, 150 MB."""


MAX_ASPECT = 200
"""Maximum ratio of long to short side: the limit of Qwen2-VL's smart_resize (qwen_vl_utils, transformers)."""


def check_image(path: Path, max_pixels: int) -> ImageRef:
    """Open, measure, decode and hash one file; raises Unusable with the reason.

    The size in the header is checked before anything is decoded. Pillow's own limit against decompression bombs also
    applies if the caller has turned its warning into an error.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if file.tell() == 0:
                raise Unusable(Reason.IMAGE_EMPTY, f"{path}: 0 bytes")
            file.seek(0)
            width, height = _measure(file, path, max_pixels)
    except OSError as error:
        raise Unusable(Reason.IMAGE_MISSING, f"{path}: cannot be read: {error.strerror or error}") from error
    return ImageRef(path=str(path), sha256=digest, width=width, height=height)


def _measure(file: BinaryIO, path: Path, max_pixels: int) -> tuple[int, int]:
    """Return width and height of the upright image; raises Unusable unless it decodes to its end."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            check_sides(path, width, height, max_pixels)
            if image.mode in _UNSHOWN_MODES:
                detail = f"{path}: has pixels of mode {image.mode}; save it in RGB with 8 bits per channel"
                raise Unusable(Reason.IMAGE_DEPTH, detail)
            # A JPEG is still read to its end, but decoded at an eighth of its size.
            image.draft(None, (width // 8, height // 8))
            image.load()
            sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable(Reason.IMAGE_TOO_LARGE, f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        file.seek(0)
        if file.read(8).startswith(_BEGINNINGS):
            raise Unusable(Reason.IMAGE_TRUNCATED, f"{path}: ends within its header") from error
        raise Unusable(Reason.NOT_AN_IMAGE, f"{path}: not in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:
        # Decoders raise all kinds of errors on broken bytes, and one file must not stop a run.
        raise Unusable(Reason.IMAGE_TRUNCATED, f"{path}: cannot be decoded to its end: {error}") from error
    return (height, width) if sideways else (width, height)


def check_sides(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Raise Unusable for a picture that is too large or too thin."""
    if width * height > max_pixels:
        detail = f"{path}: {width}×{height} pixels, at most {max_pixels:,} are allowed"
        raise Unusable(Reason.IMAGE_TOO_LARGE, detail)
    if max(width, height) > MAX_ASPECT * min(width, height):
        detail = f"{path}: {width}×{height} pixels; no side may be over {MAX_ASPECT} times the other"
        raise Unusable(Reason.IMAGE_TOO_THIN, detail)


# --- the files of a set --------------------------------------------------------------------------------------


@contextmanager
def check_images(paths: Iterable[Path], max_pixels: int, known: Path | None) -> Generator[Callable[[Path], ImageRef]]:
    """Check all images at `paths` in threads; yield a function that returns the result for one or raises Unusable.

    If `known` is given, results are stored in that file, and images that have not changed since are not opened again.
    """
    store = None if known is None else KnownFiles(known, name_recipe(max_pixels), restore_image)
    with warnings.catch_warnings():
        # Warning filters belong to the process, so they are set here, around all threads, and not in each of them.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with check_files(paths, lambda path: check_image(path, max_pixels), store) as check:
            yield check


def name_recipe(max_pixels: int) -> str:
    """Return what the result of checking an image depends on, besides its file."""
    return f"{max_pixels}/{PIL.__version__}/{digest_code('images')}"


@contextmanager
def check_files(
    paths: Iterable[Path], check: Callable[[Path], Checked], store: KnownFiles[Checked] | None
) -> Generator[Callable[[Path], Checked]]:
    """Check all files at `paths` in threads; yield a function that returns the result for one or raises Unusable."""

    def look(path: Path) -> tuple[Checked | Unusable, Seen]:
        seen = Seen.of(path)
        try:
            return check(path), seen
        except Unusable as why:
            return why, seen

    def get_result(path: Path) -> Checked:
        found = believed.get(path)
        if found is None:
            found, seen = believed[path], _ = new.pop(path).result()
            if store is not None:
                store.keep(path, seen, found)
        if isinstance(found, Unusable):
            raise found
        return found

    with store or nullcontext(), ThreadPoolExecutor(count_threads()) as pool:
        distinct = dict.fromkeys(paths)
        believed = {} if store is None else store.known(distinct)
        new = {path: pool.submit(look, path) for path in distinct if path not in believed}
        try:
            yield get_result
        finally:
            # An interrupted call must not first check all files that are still waiting.
            pool.shutdown(cancel_futures=True)


def count_threads() -> int:
    """Return how many files are decoded at a time: one per core, and no more than memory allows."""
    return min(_MAX_THREADS, os.cpu_count() or 1)
