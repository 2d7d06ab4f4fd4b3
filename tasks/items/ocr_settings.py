"""The models and settings with which the text on images is read. They are part of the reader's identity."""

from dataclasses import asdict, dataclass

MODELS = {"Det": "PP-OCRv6_det_small.onnx", "Rec": "PP-OCRv6_rec_small.onnx"}
"""The model files in rapidocr's wheel: text detection and text recognition."""


@dataclass(frozen=True)
class OcrSettings:
    """Trade-offs between time and found text; tests/benchmarks/ocr/main.py measures them.

    Lengths are pixels of the detail view, in which small text is detected, or of the overview, which has half its
    width and height.
    """

    side: int = 2000
    """An image is reduced until its long side has this length. Only the part `shape` of a long image counts."""
    shape: float = 2.2
    """A screenshot that is longer than this many times its width counts as a tall one."""
    small: int = 736
    """A short side below this length is enlarged to it, ..."""
    enlarge: float = 2.5
    """... but at most by this factor, ..."""
    enlarged_pixels: float = 1.8e6
    """... and up to this many pixels."""
    faint: float = 0.02
    """Where the overview's text probability is higher, the detail view is looked at too."""
    margin: int = 4
    """Overview pixels around such places that are looked at too."""
    big: int = 16
    """Text whose box in the overview has at least this height ..."""
    clear: float = 0.7
    """... and at least this mean probability is not detected again in the detail view."""
    squeeze: float = 0.65
    """Lines are recognised with their width multiplied by this, because recognition time grows with the width."""
    sure: float = 0.9
    """A line that is read with a lower score is read again in its full width."""
    doubtful: float = 0.85
    """A line whose score is still lower is read again upside down."""
    lowest: float = 0.5
    """Lines with a lower score are left out."""

    def describe(self) -> str:
        """Return all values, for the reader's identity."""
        return ",".join(f"{name}={value:g}" for name, value in asdict(self).items())
