"""Read the text on images: the program that tasks/items/ocr.py starts in separate processes."""

import hashlib
import io
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import orjson
import rapidocr
from numpy.typing import NDArray
from PIL import Image
from rapidocr.utils.to_markdown import ToMarkdown

from tasks.items.ocr_detection import Pixels, TextDetector
from tasks.items.ocr_recognition import TextRecogniser
from tasks.items.ocr_settings import MODELS, OcrSettings
from tasks.items.pixels import render_pixels

Line = tuple[str, tuple[int, int, int, int]]
"""A piece of text, and the left, top, right and bottom of the upright rectangle around it."""


def main() -> None:
    """Answer each line ``[path, digest]`` of standard input with a line ``{"text": …, "lines": …, "fault": …}``."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    reader = TextReader(OcrSettings())
    for line in sys.stdin.buffer:
        question = orjson.loads(line)
        answer: dict[str, object] = {"text": "", "lines": [], "fault": ""}
        try:
            if question:
                answer["text"], answer["lines"] = reader.read_page(_load_picture(*question))
        except Exception as error:  # one bad image must not end the reader
            answer["fault"] = f"{type(error).__name__}: {error}"[:500]
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()


class TextReader:
    """Reads text with RapidOCR's models, in one thread."""

    def __init__(self, settings: OcrSettings) -> None:
        """Load the models; raises FileNotFoundError when rapidocr's wheel lacks one."""
        cv2.setNumThreads(1)
        folder = Path(rapidocr.__file__).parent / "models"
        if lacking := [name for name in MODELS.values() if not (folder / name).is_file()]:
            raise FileNotFoundError(
                f"{folder} lacks {', '.join(lacking)}; install the version of rapidocr in requirements/"
            )
        detection, recognition = (_open_model(folder / MODELS[stage]) for stage in ("Det", "Rec"))
        characters = recognition.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._detector = TextDetector(lambda pixels: _run(detection, pixels)[0], settings)
        self._recogniser = TextRecogniser(lambda pixels: _run(recognition, pixels), characters, settings)

    def read_page(self, picture: Image.Image) -> tuple[str, list[Line]]:
        """Return the text on an RGB picture, one line per row of text, in reading order; and its pieces."""
        pixels = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])  # the models were trained on BGR
        boxes = self._detector.find_boxes(pixels)
        texts = self._recogniser.read_boxes(pixels, boxes)
        found = [(box, text) for box, text in zip(boxes, texts, strict=True) if text.strip()]
        if not found:
            return "", []
        # RapidOCR's Markdown puts pieces of one height into one line, with spaces for the gaps
        page = ToMarkdown.to(*zip(*found, strict=True))
        lines = (" ".join(line.split()) for line in page.splitlines())
        pieces = [(text, _find_extent(box, picture)) for box, text in found]
        return "\n".join(filter(None, lines)), sorted(pieces, key=lambda piece: piece[1][1])


def _find_extent(box: NDArray[np.float32], picture: Image.Image) -> tuple[int, int, int, int]:
    sides = np.array(picture.size)
    (left, top), (right, bottom) = box.min(0).clip(0, sides), box.max(0).clip(0, sides)
    return round(float(left)), round(float(top)), round(float(right)), round(float(bottom))


def _open_model(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(model: onnxruntime.InferenceSession, pixels: Pixels) -> NDArray[np.float32]:
    """Return a model's output for one image."""
    scaled = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)[None] / np.float32(127.5) - np.float32(1)
    return np.asarray(model.run(None, {"x": scaled})[0], np.float32)[0]


def _load_picture(path: str, sha256: str) -> Image.Image:
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OSError("changed since it was read")
    with Image.open(io.BytesIO(data)) as file:
        return render_pixels(file)


if __name__ == "__main__":
    main()
