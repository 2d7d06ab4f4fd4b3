from itertools import pairwise

import numpy as np
import pytest

from tasks.items.ocr_detection import CELL, Map, Pixels, TextDetector, choose_scale, cut_into_places, cut_into_tiles
from tasks.items.ocr_settings import OcrSettings


class InkNetwork:
    """Takes black for text, and grey for what may be text; `looks` are the sizes of what it was shown."""

    def __init__(self) -> None:
        self.looks: list[tuple[int, int]] = []

    def __call__(self, pixels: Pixels) -> Map:
        self.looks.append(pixels.shape[:2])
        darkness = 1 - pixels[:, :, 0].astype(np.float32) / 255
        return np.where(darkness > 0.6, 0.95, np.where(darkness > 0.1, 0.1, 0)).astype(np.float32)


def draw_bars(height: int, width: int, thick: int, tops: list[int]) -> Pixels:
    page = np.full((height, width, 3), 255, np.uint8)
    for top in tops:
        page[top : top + thick, 100:-300] = 0
    return page


def test_each_line_of_a_tall_image_is_found_once():
    tops = list(range(40, 5900, 70))
    boxes = TextDetector(InkNetwork(), OcrSettings()).find_boxes(draw_bars(6000, 1000, 12, tops))
    assert len(boxes) == len(tops)
    middles = sorted(box[:, 1].mean() for box in boxes)
    assert all(abs(middle - top - 6) < 4 for middle, top in zip(middles, tops, strict=True))


def test_without_text_only_the_overview_is_looked_at():
    network = InkNetwork()
    assert len(TextDetector(network, OcrSettings()).find_boxes(draw_bars(1000, 800, 0, []))) == 0
    assert network.looks == [(512, 416)]


def test_small_text_is_looked_at_in_detail_and_big_text_is_not():
    network = InkNetwork()
    detector = TextDetector(network, OcrSettings())
    assert len(detector.find_boxes(draw_bars(1600, 800, 60, [800]))) == 1
    assert len(network.looks) == 1
    assert len(detector.find_boxes(draw_bars(1600, 800, 8, [800]))) == 1
    detail = network.looks[-1]
    assert detail[0] < 200 and detail[1] > 400


@pytest.mark.parametrize("shape", [(2340, 1080), (6000, 1080), (420, 420), (30, 3000), (5, 5)])
def test_text_sizes_differ_little_in_detail_views(shape: tuple[int, int]):
    scale = choose_scale(*shape, OcrSettings())
    assert choose_scale(*shape[::-1], OcrSettings()) == scale
    assert 0.8 <= scale <= 2.5
    assert round(choose_scale(6000, 4000, OcrSettings()), 2) == 0.33


@pytest.mark.parametrize("length", [32, 1024, 1056, 2048, 6016])
def test_tiles_cover_a_length_and_overlap(length: int):
    tiles = cut_into_tiles(length, 1024)
    assert tiles[0][0] == 0 and tiles[-1][1] == length
    assert all(begin % CELL == 0 and 0 < end - begin <= 1024 for begin, end in tiles)
    assert all(end - begin >= 96 for (_, end), (begin, _) in pairwise(tiles))


def test_places_cover_marked_cells_once():
    cells = np.random.default_rng(0).random((40, 20)) < 0.1
    seen = np.zeros(cells.shape, int)
    for top, left, bottom, right in cut_into_places(cells):
        seen[top:bottom, left:right] += 1
    assert (seen[cells] == 1).all()
    assert seen.max() == 1
    assert list(cut_into_places(np.zeros((3, 3), np.bool_))) == []
