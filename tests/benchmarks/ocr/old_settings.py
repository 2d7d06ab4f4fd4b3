"""The OCR settings before the detail view: RapidOCR's defaults, for comparison."""

from pathlib import Path
from typing import Any

import rapidocr
from PIL import Image

MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}


class OldReader:
    """Reads text as labelstill did: detection on 736 to 2000 pixels, angle classifier, lines padded to 320 pixels."""

    def __init__(self) -> None:
        folder = Path(rapidocr.__file__).parent / "models"
        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        paths = {f"{stage}.model_path": str(folder / name) for stage, name in MODELS.items()}
        self._rapidocr: Any = rapidocr.RapidOCR(params={"Global.log_level": "error", **threads, **paths})

    def read_text(self, picture: Image.Image) -> str:
        found = self._rapidocr(picture)
        if not getattr(found, "txts", None):
            return ""
        lines = (" ".join(line.split()) for line in found.to_markdown().splitlines())
        return "\n".join(filter(None, lines))
