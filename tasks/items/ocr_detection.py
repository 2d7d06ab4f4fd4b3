"""Find the text on an image: an overview shows where text may be, and only these places are looked at in detail.

The detection network takes 0.5 s of a core per million pixels, 0.9 s for a phone screenshot. In an overview of half the
width and height, text of 18 pixels is too small for boxes, but its probability is still far above that of an area
without text. So small text is detected at full size on the 15 to 60 % of a screenshot where there may be any, big text
in the overview alone, and an image without text is left after the overview. All probabilities are written into one map
of the image, and boxes are drawn in that map: neither tiles nor places cut a line in two or find it twice.
"""

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidocr.ch_ppocr_det.utils import DBPostProcess

from tasks.items.ocr_settings import OcrSettings

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]
"""Text probability per pixel."""
Boxes = NDArray[np.float32]
"""Four corners of each box, clockwise from the top left."""
Place = tuple[int, int, int, int]
"""Top, left, bottom and right."""

CELL = 32
"""The network takes sides that are multiples of this."""
TILE = {"overview": 1024, "detail": 2048}
"""Longest side that the network gets; it bounds the memory."""
OVERLAP = 128


class TextDetector:
    """Finds boxes around lines of text with `network`, which maps pixels to text probabilities."""

    def __init__(self, network: Callable[[Pixels], Map], settings: OcrSettings) -> None:
        self._network = network
        self._settings = settings
        self._draw = DBPostProcess(
            thresh=0.3, box_thresh=0.5, max_candidates=10_000, unclip_ratio=1.6, use_dilation=True
        )

    def find_boxes(self, picture: Pixels) -> Boxes:
        """Return the boxes of the lines of text on a picture, in its own pixels."""
        height, width = picture.shape[:2]
        detail = _resize(picture, choose_scale(height, width, self._settings))
        chances = self._look(_resize(detail, 0.5), TILE["overview"])
        big = self._cover_big_text(chances)
        cells = self._mark_cells(chances, big, detail.shape[:2])
        chances = np.asarray(cv2.resize(chances, detail.shape[1::-1]), np.float32)
        big = np.asarray(cv2.resize(big, detail.shape[1::-1]), np.uint8)
        for top, left, bottom, right in cut_into_places(cells):
            place = np.s_[top * CELL : bottom * CELL, left * CELL : right * CELL]
            np.copyto(chances[place], self._look(detail[place], TILE["detail"]), where=big[place] == 0)
        return self._draw_boxes(chances, height, width)[0]

    def _look(self, pixels: Pixels, tile: int) -> Map:
        """Return the text probabilities of a part of the image, from overlapping tiles if it is large."""
        height, width = pixels.shape[:2]
        padded = np.pad(pixels, ((0, -height % CELL), (0, -width % CELL), (0, 0)), "edge")
        chances = np.zeros(padded.shape[:2], np.float32)
        for top, bottom in cut_into_tiles(padded.shape[0], tile):
            for left, right in cut_into_tiles(padded.shape[1], tile):
                seen = chances[top:bottom, left:right]
                np.maximum(seen, self._network(padded[top:bottom, left:right]), out=seen)
        return chances[:height, :width]

    def _cover_big_text(self, chances: Map) -> Pixels:
        """Return the overview with 1 where text is so big that the overview shows it well, and 0 elsewhere."""
        covered = np.zeros(chances.shape, np.uint8)
        for box, chance in zip(*self._draw_boxes(chances, *chances.shape), strict=True):
            height = min(np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[0] - box[3]))
            if height >= self._settings.big and chance >= self._settings.clear:
                cv2.fillPoly(covered, [box.round().astype(np.int32)], 1)
        return covered

    def _mark_cells(self, chances: Map, big: Pixels, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return which cells of the detail view, of size `shape`, may have text that is not big."""
        mask = ((chances > self._settings.faint) & (big == 0)).astype(np.uint8)
        side = 2 * self._settings.margin + 1
        wide = np.asarray(cv2.resize(cv2.dilate(mask, np.ones((side, side), np.uint8)), shape[1::-1]), np.bool_)
        wide = np.pad(wide, [(0, -length % CELL) for length in shape[:2]])
        rows, columns = (length // CELL for length in wide.shape)
        return np.any(wide.reshape(rows, CELL, columns, CELL), axis=(1, 3))

    def _draw_boxes(self, chances: Map, height: int, width: int) -> tuple[Boxes, list[float]]:
        """Return the boxes in a map, in pixels of an image of this height and width, and their mean probabilities."""
        boxes, means = self._draw(chances[None, None], (height, width))
        return np.asarray(boxes, np.float32).reshape(-1, 4, 2), means


def choose_scale(height: int, width: int, settings: OcrSettings) -> float:
    """Return by which factor an image is reduced, or a small one enlarged, for the detail view."""
    short, long = sorted((height, width))
    scale = min(1.0, settings.side / min(long, settings.shape * short))
    if short * scale >= settings.small:
        return scale
    largest = min(settings.small / short, settings.enlarge, math.sqrt(settings.enlarged_pixels / (short * long)))
    return max(scale, largest)


def cut_into_tiles(length: int, tile: int) -> list[tuple[int, int]]:
    """Return the beginnings and ends of tiles, at multiples of CELL, that cover a length and overlap."""
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - OVERLAP) / (tile - OVERLAP))
    begins = [number * (length - tile) // (count - 1) // CELL * CELL for number in range(count)]
    return [(begin, min(length, begin + tile)) for begin in begins]


def cut_into_places(cells: NDArray[np.bool_], top: int = 0, left: int = 0) -> Iterator[Place]:
    """Yield rectangles that together cover all marked cells, cut wherever a whole row or column is unmarked."""
    for axis in (0, 1):
        marked = np.flatnonzero(cells.any(1 - axis))
        if not marked.size:
            return
        runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(marked, np.flatnonzero(np.diff(marked) > 1) + 1)]
        if len(runs) > 1 or runs[0] != (0, cells.shape[axis]):
            for begin, end in runs:
                part = cells[begin:end] if axis == 0 else cells[:, begin:end]
                yield from cut_into_places(part, top + begin * (axis == 0), left + begin * (axis == 1))
            return
    yield top, left, top + cells.shape[0], left + cells.shape[1]


def _resize(picture: Pixels, scale: float) -> Pixels:
    if scale == 1:
        return picture
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=way), np.uint8)
