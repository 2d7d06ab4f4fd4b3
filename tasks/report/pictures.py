"""Make small pictures of items' images and of recordings' frames for pages that are sent by mail."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from tasks.items.images import FORMATS
from tasks.items.pixels import render_pixels
from tasks.media import Box, ImageRef, VideoRef
from tasks.prompts.recordings import keep_frames

_PICTURE_SIZE = (220, 330)
"""Maximum width and height. A picture has about 10 kB, so a page with a hundred of them can be sent by mail."""
_FRAME_SIZE = (90, 135)
"""The same for a frame of a recording, which is shown beside other frames."""
_FRAMES = 4
"""Number of frames that are shown of a recording."""
_PICTURE_QUALITY = 68
_BOX_COLOUR = "#6b4a8f"  # as on the review page


@dataclass(frozen=True)
class Picture:
    """A small version of an image."""

    url: str
    """A `data:` URL with a WebP image, or empty if the image cannot be shown."""
    width: int
    height: int
    note: str
    """The size of the original image, or why it cannot be shown."""


def make_strip(video: VideoRef) -> tuple[Picture, ...]:
    """Return small pictures of some frames of a recording, evenly spread, each with its time as a note."""
    shown = keep_frames(video, _FRAMES)
    pictures = [shrink_image(frame, _FRAME_SIZE) for frame in shown.frames]
    notes = [f"at {time:.1f} of {video.seconds:.1f} s" for time in shown.times]
    return tuple(replace(p, note=note if p.url else p.note) for p, note in zip(pictures, notes, strict=True))


def shrink_image(image: ImageRef, most: tuple[int, int] = _PICTURE_SIZE, boxes: Iterable[Box] = ()) -> Picture:
    """Return a small, upright picture on white. If the file cannot be read, the picture has no URL but a note.

    `most` are its maximum width and height, `boxes` those that are drawn on it.
    """
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            file.draft("RGB", most)  # a JPEG is decoded no larger than needed
            picture = render_pixels(file)
            picture.thumbnail(most, Image.Resampling.LANCZOS)
            scale = picture.width / image.width
            for box in boxes:
                left, top, right, bottom = (round(corner * scale) for corner in box.corners)
                # with a border, without which it can't be seen on dark pictures
                ImageDraw.Draw(picture).rectangle((left - 2, top - 2, right + 2, bottom + 2), outline="white", width=2)
                ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=_BOX_COLOUR, width=2)
    except Exception as error:  # decoders raise all kinds of errors on broken bytes
        return Picture("", 0, 0, f"{image.path}: {error}")
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_PICTURE_QUALITY)
    url = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(url, *picture.size, f"{image.width} × {image.height} pixels")
