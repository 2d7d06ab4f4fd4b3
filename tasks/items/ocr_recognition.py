"""Read the text in boxes of an image.

The recognition network takes 0.1 ms of a core per pixel of a line's width, so each line goes through it alone, without
padding to the width of others, and squeezed to two thirds of its width. Both cost nothing where a line is read with a
high score; the few others are read again in full width, and upside down if that does not help either.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidocr.ch_ppocr_rec.utils import CTCLabelDecode
from rapidocr.utils.process_img import get_rotate_crop_image

from tasks.items.ocr_detection import Boxes, Pixels
from tasks.items.ocr_settings import OcrSettings

HEIGHT = 48
"""Height of a line in the network's input."""


class TextRecogniser:
    """Reads lines with `network`, which maps the pixels of a line to a probability per character at each step."""

    def __init__(
        self, network: Callable[[Pixels], NDArray[np.float32]], characters: list[str], settings: OcrSettings
    ) -> None:
        self._network = network
        self._settings = settings
        self._decode = CTCLabelDecode(character=characters)

    def read_boxes(self, picture: Pixels, boxes: Boxes) -> list[str]:
        """Return the text in each box of a picture; empty where nothing is read with a sufficient score."""
        return [self._read_line(get_rotate_crop_image(picture, box)) for box in boxes]

    def _read_line(self, line: Pixels) -> str:
        text, score = self._recognise(line, self._settings.squeeze)
        if score < self._settings.sure:
            text, score = max((text, score), self._recognise(line, 1), key=_get_score)
        if score < self._settings.doubtful:
            text, score = max((text, score), self._recognise(np.rot90(line, 2), 1), key=_get_score)
        return text if score >= self._settings.lowest else ""

    def _recognise(self, line: Pixels, squeeze: float) -> tuple[str, float]:
        height, width = line.shape[:2]
        columns = max(HEIGHT // 3, math.ceil(HEIGHT * width / height * squeeze))
        steps = self._network(np.asarray(cv2.resize(line, (columns, HEIGHT)), np.uint8))
        lines, _ = self._decode(steps[None])
        return lines[0]


def _get_score(read: tuple[str, float]) -> float:
    return read[1]
