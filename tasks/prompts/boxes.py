"""Check boxes, convert them between an image's pixels and other grids, and measure how far two overlap."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from tasks.media import Box, ImageRef

Grid = tuple[float, float]
"""The coordinates of an image's lower right corner, such as 1000 and 1000, or the sides of a resized image."""
THOUSANDTHS: Grid = (1000, 1000)
_ROUNDING = 1
"""A coordinate may be so far outside the image, as left + width and rounded coordinates are; it is set to the edge."""


class BoxFault(StrEnum):
    """What is wrong with a box. Reason codes of intake have the same values."""

    UNREADABLE = "box_unreadable"
    """It has no known form, or not four finite numbers."""
    WRONG_IMAGE = "box_wrong_image"
    """It names an image that the item does not have, or none although the item has several."""
    REVERSED = "box_reversed"
    """Its right edge is left of its left edge, or its lower edge above its upper edge."""
    DEGENERATE = "box_degenerate"
    """It has no width or no height."""
    OUT_OF_RANGE = "box_out_of_range"
    """It is not inside its image."""


class BadBox(Exception):
    """Raised for a box that cannot be used; `fault` says why, `detail` tells people."""

    def __init__(self, fault: BoxFault, detail: str) -> None:
        super().__init__(fault, detail)
        self.fault = fault
        self.detail = detail


class RawBox(NamedTuple):
    """A box as a manifest or an answer contains it, before it is checked."""

    ref: str
    numbers: tuple[float, ...]
    """Left, top, right, bottom."""
    image: int | None = None
    """Position of its image, from 0; None if nothing says which image is meant."""
    grid: Grid | None = None
    """What the numbers are relative to; None: they are pixels of the upright image."""


def check_box(raw: RawBox, images: Sequence[ImageRef]) -> Box:
    """Return the box in pixels of its upright image; raises BadBox if it is not inside one of `images`."""
    shown = f"box {[round(number, 3) for number in raw.numbers]}" + (f" (`{raw.ref}`)" if raw.ref else "")
    if len(raw.numbers) != 4 or not all(map(math.isfinite, raw.numbers)):
        raise BadBox(BoxFault.UNREADABLE, f"{shown} has not four finite numbers: left, top, right, bottom")
    if raw.image is None and len(images) > 1:
        raise BadBox(BoxFault.WRONG_IMAGE, f"{shown} does not say which of the {len(images)} images it is on")
    number = raw.image or 0
    if not 0 <= number < len(images):
        raise BadBox(BoxFault.WRONG_IMAGE, f"{shown} is on image {number} (from 0), but the item has {len(images)}")
    left, top, right, bottom = raw.numbers
    if right < left or bottom < top:
        raise BadBox(BoxFault.REVERSED, f"{shown} ends before it begins; its order must be left, top, right, bottom")
    if right == left or bottom == top:
        raise BadBox(BoxFault.DEGENERATE, f"{shown} has no width or no height")
    if raw.grid is None and max(right, bottom) <= 1:
        fault = f"{shown} is within one pixel: multiply shares of the image by its width and height"
        raise BadBox(BoxFault.DEGENERATE, fault)
    image = images[number]
    width, height = raw.grid or (image.width, image.height)
    if min(left, top) < -_ROUNDING or right > width + _ROUNDING or bottom > height + _ROUNDING:
        raise BadBox(BoxFault.OUT_OF_RANGE, f"{shown} is not inside its image, whose sides are {width:g}×{height:g}")
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if right <= left or bottom <= top:
        raise BadBox(BoxFault.OUT_OF_RANGE, f"{shown} is beside its image, whose sides are {width:g}×{height:g}")
    across, down = image.width / width, image.height / height
    return Box(image=number, ref=raw.ref, corners=(left * across, top * down, right * across, bottom * down))


def scale_box(box: Box, image: ImageRef, grid: Grid) -> tuple[int, int, int, int]:
    """Return the corners of a box of `image` in whole units of `grid`, at least one unit apart."""
    left, right = _scale_side(box.corners[0], box.corners[2], image.width, grid[0])
    top, bottom = _scale_side(box.corners[1], box.corners[3], image.height, grid[1])
    return left, top, right, bottom


def _scale_side(start: float, end: float, side: int, units: float) -> tuple[int, int]:
    first, last = round(start * units / side), round(end * units / side)
    if first == last:
        first, last = (first, first + 1) if first < units else (first - 1, first)
    return first, last


def compute_overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share divided by the area that they cover together; 0 on different images."""
    if one.image != other.image:
        return 0.0
    (*start, right, bottom), (*other_start, other_right, other_bottom) = one.corners, other.corners
    left, top = map(max, start, other_start)
    shared = measure_area((left, top, min(right, other_right), min(bottom, other_bottom)))
    return shared / (measure_area(one.corners) + measure_area(other.corners) - shared)


def measure_area(corners: tuple[float, float, float, float]) -> float:
    """Return the area of a box; 0 if its corners are reversed."""
    return max(0.0, corners[2] - corners[0]) * max(0.0, corners[3] - corners[1])
