"""Decode images to the pixels that every model sees, and recognise the files of which a trainer would show others.

Trainers load an image with `Image.open(path).convert("RGB")`. That ignores the rotation which phones note in EXIF,
shows transparent pixels in whatever colour they hide, often black, and cuts 16-bit values off at 255, which makes
nearly all of them white.
"""

import io
import os
from typing import IO, cast

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps

_JPEGS = ("JPEG", "MPO")
_LATE = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def render_pixels(image: Image.Image) -> Image.Image:
    """Return an opened image as models see it: upright, in 8-bit RGB, and white where it is transparent."""
    upright = ImageOps.exif_transpose(image)
    if _is_deep(upright):
        return Image.fromarray((np.asarray(upright) / 257).round().astype(np.uint8)).convert("RGB")
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    opaque = Image.new("RGB", layer.size, "white")
    opaque.paste(layer, mask=layer.getchannel("A"))
    return opaque


def render_if_different(image: Image.Image) -> Image.Image | None:
    """Return an opened image as models see it; None if `convert("RGB")` shows the same.

    Nearly all files are recognised by their header. Only the others are decoded.
    """
    if not (_is_deep(image) or image.has_transparency_data or is_turned(image)):
        return None
    rendered = render_pixels(image)
    plain = image.convert("RGB")
    same = plain.size == rendered.size and ImageChops.difference(plain, rendered).getbbox() is None
    return None if same else rendered


def choose_suffix(image: Image.Image) -> str:
    """Return the suffix of the file to write an opened image to: `.jpg` if it is a JPEG, otherwise `.png`."""
    return ".jpg" if image.format in _JPEGS else ".png"


def encode_picture(picture: Image.Image, suffix: str) -> bytes:
    """Return an RGB picture as the bytes of a JPEG (quality 95, full colour resolution) or a PNG, by the suffix."""
    buffer = io.BytesIO()
    picture.info.clear()  # a colour profile or a rotation of the source would be written too
    if suffix == ".jpg":
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        # level 6 takes 1.5 times as long, and is no smaller for screenshots
        picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I;16")


def is_turned(image: Image.Image) -> bool:
    """Return whether an opened image is displayed rotated or mirrored, as its EXIF data say."""
    file = cast(IO[bytes] | None, getattr(image, "fp", None))
    if image.format == "PNG" and file is not None and _has_late_metadata(file):
        image.load()
    # PngImageFile.getexif would decode the whole file to look for metadata behind the pixels.
    return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in range(2, 9)


def _has_late_metadata(png: IO[bytes]) -> bool:
    """Return whether a PNG has metadata after its pixels, reading only the heads of its chunks."""
    before = png.tell()
    png.seek(8)
    behind_pixels = found = False
    while not found and len(head := png.read(8)) == 8:
        behind_pixels = behind_pixels or head[4:] == b"IDAT"
        found = behind_pixels and head[4:] in _LATE
        png.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)
    png.seek(before)
    return found
