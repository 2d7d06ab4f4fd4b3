"""Make small pictures of items' images for pages that are sent by mail."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from tasks.items.images import FORMATS
from tasks.items.pixels import render_pixels
from tasks.media import ImageRef

_PICTURE_SIZE = (220, 330)
"""Maximum width and height. A picture has about 10 kB, so a page with a hundred of them can be sent by mail."""
_PICTURE_QUALITY = 68


@dataclass(frozen=True)
class Picture:
    """A small version of an image."""

    url: str
    """A `data:` URL with a WebP image, or empty if the image cannot be shown."""
    width: int
    height: int
    note: str
    """The size of the original image, or why it cannot be shown."""


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
