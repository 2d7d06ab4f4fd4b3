"""Read the text on images: the program that tasks/items/ocr.py starts in separate processes."""

import hashlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import orjson
from PIL import Image

from tasks.items.pixels import render_pixels

MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}
"""The model files in rapidocr's wheel, given by name because RapidOCR downloads models that it cannot find."""


def main() -> None:
    """Answer each line ``[path, digest]`` of standard input with a line ``{"text": …, "fault": …}``."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    recognise = _recogniser()
    for line in sys.stdin.buffer:
        question = orjson.loads(line)
        answer = {"text": "", "fault": ""}
        try:
            if question:
                answer["text"] = _text(recognise, *question)
        except Exception as error:  # one bad image must not end the reader
            answer["fault"] = f"{type(error).__name__}: {error}"[:500]
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()


def _recogniser() -> Any:
    import cv2
    import rapidocr

    cv2.setNumThreads(1)
    models = Path(rapidocr.__file__).parent / "models"
    if lacking := [name for name in MODELS.values() if not (models / name).is_file()]:
        raise FileNotFoundError(
            f"{models} lacks {', '.join(lacking)}; install the version of rapidocr in requirements/"
        )
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    paths = {f"{stage}.model_path": str(models / name) for stage, name in MODELS.items()}
    return rapidocr.RapidOCR(params={"Global.log_level": "error", **threads, **paths})


def _text(recognise: Any, path: str, sha256: str) -> str:
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OSError("changed since it was read")
    with Image.open(io.BytesIO(data)) as file:
        picture = render_pixels(file)
    found = recognise(picture)
    if not getattr(found, "txts", None):
        return ""
    # RapidOCR's Markdown puts pieces of one height into one line, with spaces for the gaps
    lines = (" ".join(line.split()) for line in found.to_markdown().splitlines())
    return "\n".join(filter(None, lines))


if __name__ == "__main__":
    main()
