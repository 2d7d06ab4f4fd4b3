import numpy as np
from numpy.typing import NDArray

from tasks.items.ocr_detection import Pixels
from tasks.items.ocr_recognition import TextRecogniser
from tasks.items.ocr_settings import OcrSettings


class ScriptedNetwork:
    """Answers the n-th call with "a" for the first script entry, "b" for the second, …, with the scores given."""

    def __init__(self, *scores: float) -> None:
        self._scores = iter(enumerate(scores, start=1))
        self.lines: list[Pixels] = []

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        self.lines.append(pixels)
        number, score = next(self._scores)
        steps = np.zeros((1, 5), np.float32)  # nothing, a, b, c, space
        steps[0, number] = score
        return steps


def read(network: ScriptedNetwork) -> str:
    picture = np.tile(np.linspace(0, 255, 240, dtype=np.uint8)[None, :, None], (24, 1, 3))
    box = np.array([[0, 0], [240, 0], [240, 24], [0, 24]], np.float32)
    return TextRecogniser(network, ["a", "b", "c"], OcrSettings()).read_boxes(picture, box[None])[0]


def test_a_clear_line_is_read_once_and_squeezed():
    network = ScriptedNetwork(0.95)
    assert read(network) == "a"
    assert [line.shape for line in network.lines] == [(48, 312, 3)]


def test_an_unsure_line_is_read_again_in_full_width_and_the_better_text_counts():
    assert read(ScriptedNetwork(0.88, 0.87)) == "a"
    network = ScriptedNetwork(0.87, 0.88)
    assert read(network) == "b"
    assert [line.shape for line in network.lines] == [(48, 312, 3), (48, 480, 3)]


def test_a_doubtful_line_is_read_upside_down():
    network = ScriptedNetwork(0.3, 0.2, 0.9)
    assert read(network) == "c"
    assert network.lines[1][0, 0, 0] < network.lines[1][0, -1, 0]
    assert network.lines[2][0, 0, 0] > network.lines[2][0, -1, 0]


def test_what_cannot_be_read_is_left_out():
    assert read(ScriptedNetwork(0.3, 0.2, 0.4)) == ""
