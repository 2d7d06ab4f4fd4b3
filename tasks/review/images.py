"""Make small pictures of items' images and of recordings' frames, for the review page and for Label Studio.

The pictures lie in a folder beside the page. A later page uses them again, so an image is encoded once.
"""

import base64
import io
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from tasks.items.images import FORMATS
from tasks.items.pixels import render_pixels
from tasks.media import ImageRef
from tasks.storage.files import write_bytes

SHOWN_PIXELS = 650_000
"""Maximum area of a picture. A phone's screenshot of 1080×2400 becomes 540×1200, in which its texts are legible."""
FRAME_PIXELS = 250_000
"""Maximum area of a picture of a recording's frame, of which the page shows several beside each other."""
_ALMOST = 1.06
"""A picture may be smaller by this factor than it could be, if that makes it a whole fraction of the image."""
_QUALITY, _SMALL, _SMALL_QUALITY = 25, 100_000, 80
"""WebP's quality; pictures with fewer pixels than `_SMALL` are enlarged on the page, so they need a higher one."""


def write_pictures(
    images: Iterable[ImageRef], frames: Iterable[ImageRef], folder: Path
) -> Mapping[str, Path | OSError]:
    """Write a picture of each image and frame to `folder`, on all cores, and remove pictures of others.

    Returns a dict that maps the image's digest to the picture's file, or to the error if the image can't be shown.
    Pictures that are there already are kept. At most as many images as there are cores are in memory.
    """
    sized = [(frame, FRAME_PIXELS) for frame in frames] + [(image, SHOWN_PIXELS) for image in images]
    distinct = {image.sha256: (image, most) for image, most in sized}
    # the size is in the name, so that pictures of other sizes are not used again
    files = {d: folder / f"{d[:40]}.{most // 1000}q{_QUALITY}.webp" for d, (_, most) in distinct.items()}

    def write(digest: str) -> Path | OSError:
        if not files[digest].exists():
            try:
                picture = _encode(*distinct[digest])
            except OSError as error:
                return error
            write_bytes(files[digest], picture)
        return files[digest]

    if folder.exists():
        for old in set(folder.glob("*.webp")) - set(files.values()):
            old.unlink()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(distinct, pool.map(write, distinct), strict=True))


def encode_image(image: ImageRef, most: int = SHOWN_PIXELS) -> str:
    """Return a small picture of an image as a data: URL; raises OSError, naming the file, if it can't be shown."""
    return make_url(_encode(image, most))


def make_url(picture: bytes) -> str:
    """Return a picture as a data: URL."""
    return "data:image/webp;base64," + base64.b64encode(picture).decode()


def _encode(image: ImageRef, most: int) -> bytes:
    """Return a WebP image that is upright, has at most `most` pixels, and is white where the image is transparent.

    On a drawn screenshot of 540×1200 with a photo, WebP takes 40 kB and 9 ms, and texts are cleaner than in a JPEG of
    51 kB; AVIF takes 28 kB but 23 ms. Decoding the PNG takes 22 ms.
    """
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            size = _compute_size(image, most)
            # Decode a JPEG no larger than needed; by the longer side, as EXIF may rotate it.
            file.draft(None, (max(size), max(size)))
            picture = render_pixels(file)
            whole = math.ceil(picture.width / size[0] - 0.02)
            if 1 < whole < _ALMOST * picture.width / size[0]:
                picture = picture.reduce(whole)  # four times as fast as resizing
            elif picture.size != size:
                picture = picture.resize(size, Image.Resampling.HAMMING)
    except Exception as error:  # on broken bytes, decoders raise errors of any kind
        raise OSError(f"{Path(image.path).name}: {error}") from error
    buffer = io.BytesIO()
    quality = _QUALITY if picture.width * picture.height >= _SMALL else _SMALL_QUALITY
    picture.save(buffer, "WEBP", quality=quality, method=0)
    return buffer.getvalue()


def _compute_size(image: ImageRef, most: int) -> tuple[int, int]:
    scale = min(1.0, (most / (image.width * image.height)) ** 0.5)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))
