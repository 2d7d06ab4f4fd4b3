# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (scipy publishes no types)
"""How images look: perceptual hashes, cached by digest, and whether two files show one picture, saved anew or cropped.

Screens of one kind have near hashes, so a hash only proposes; `same_picture` looks at both pictures, laid over each
other, and decides.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.fft import dct
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from tasks.items.images import FORMATS
from tasks.records import ImageRef
from tasks.storage.digest_cache import DigestCache

Floats = NDArray[np.float32]

WIDTH, HEIGHT = 64, 96
"""Of the grey thumbnails that are compared, whatever the image's own shape."""
SAME = 0.935
"""Least correlation of one picture's two files. Measured on the demo's 112×168 screens: copies saved as JPEG (quality
20 and up), scaled by a half to 1.7, or cropped by 1.5 to 3 % come to 0.94 and more; of 145,000 pairs of different
screens the nearest comes to 0.93."""
MOST_CROPPED = 0.03
"""Share of a side that may be cut away for the picture still to count as the same."""
_STEPS = (0.0, MOST_CROPPED / 2, MOST_CROPPED)
_COARSE = 4.0
"""Cells: what changes over more than that is no fine structure."""
_TRIED = 8
_RECIPE = 1
"""To be raised when the same picture would get another hash."""
_SIGNED = 1 << 63
"""Moves a hash into the range of SQLite's integers, which are signed."""


class ImageHashes:
    """Hashes of images by digest, made once and kept in a SQLite file that runs may share; with None, in memory.

    The hash has 64 bits: which of the picture's 8×8 lowest cosine frequencies are above their median. Source: the
    "pHash" of Christoph Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010).
    """

    def __init__(self, file: Path | None = None) -> None:
        self._cache = DigestCache(file, f"picture-hash-{_RECIPE}")

    def hashes(self, images: Iterable[ImageRef]) -> Mapping[str, int]:
        """The hash of each image by sha256, as an unsigned number; an image that can't be read has none."""
        distinct = {image.sha256: image for image in images}
        found = {sha256: value + _SIGNED for sha256, value in self._cache.get(distinct).items()}
        missing = [image for sha256, image in distinct.items() if sha256 not in found]
        with ThreadPoolExecutor() as pool:  # decoding, nearly all of the work, leaves the interpreter's lock
            thumbnails = pool.map(thumbnail, missing)
            new = {
                image.sha256: int(picture_hashes(shown)[0])
                for image, shown in zip(missing, thumbnails, strict=True)
                if shown is not None
            }
        self._cache.put({sha256: value - _SIGNED for sha256, value in new.items()})
        return found | new


def thumbnail(image: ImageRef) -> Floats | None:
    """The picture in grey, upright, at 64×96 [HEIGHT, WIDTH]; None where the file can't be read."""
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            file.draft("L", (4 * WIDTH, 4 * HEIGHT))  # a JPEG is unpacked at a fraction of its size
            upright = ImageOps.exif_transpose(file).convert("L")
            return np.asarray(upright.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), np.float32)
    except Exception:  # decoders raise whatever their arithmetic runs into; the intake is who reports such files
        return None


def picture_hashes(shown: Floats) -> NDArray[np.uint64]:
    """The hash of a thumbnail, and after it those of the picture with up to 3 % cut off at, or added to, its sides."""
    low = np.einsum("yfh,hw,xgw->yxfg", _WAVES_Y, shown, _WAVES_X, optimize=True).reshape(-1, 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def same_picture(one: ImageRef, other: ImageRef) -> bool:
    """Whether both files show one picture, perhaps saved anew, scaled, or cropped by up to 3 % at any side.

    Equal digests do; otherwise fine structure (without its slow changes of brightness) must correlate by at least 0.93
    where one is laid over the other at its best of 81 cuts. A file that can't be read is like no other.
    """
    if one.sha256 == other.sha256:
        return True
    a, b = _smooth(one.path), _smooth(other.path)
    return a is not None and b is not None and max(_likeness(a, b), _likeness(b, a)) >= SAME


def _likeness(whole: Floats, cut: Floats) -> float:
    """The best correlation of fine structure between `cut` and `whole` less a part of its sides."""
    fine = _fine(cut)
    # <fine(X), fine(cut)> = <X, wanted>, X = CUTS_Y whole CUTS_Xᵀ: all 81 products without laying out 81 pictures
    wanted = fine - _BLUR_Y.T @ fine @ _BLUR_X
    sides = np.matmul(whole, np.swapaxes(_CUTS_X, 1, 2)).reshape(len(_CUTS_X), -1)
    rows = np.matmul(np.swapaxes(_CUTS_Y, 1, 2), wanted).reshape(len(_CUTS_Y), -1)
    # what is cut away takes its share of the picture's structure with it
    left = np.maximum(_CUTS_Y.sum(axis=1) @ _fine(whole) ** 2 @ _CUTS_X.sum(axis=1).T, 1e-6)
    best = 0.0
    for place in np.argsort(rows @ sides.T / np.sqrt(left), axis=None)[-_TRIED:]:
        y, x = divmod(int(place), len(_CUTS_X))
        laid = _fine(_CUTS_Y[y] @ whole @ _CUTS_X[x].T)
        lengths = float(np.linalg.norm(laid) * np.linalg.norm(fine))
        best = max(best, float(np.vdot(laid, fine)) / max(lengths, 1e-6))
    return best


def _fine(shown: Floats) -> Floats:
    return np.asarray(shown - _BLUR_Y @ shown @ _BLUR_X.T, np.float32)


@lru_cache(maxsize=4096)
def _smooth(path: str) -> Floats | None:
    shown = thumbnail(ImageRef(path=path, sha256="", width=1, height=1))
    return None if shown is None else np.asarray(gaussian_filter(shown, 0.7), np.float32)


def _cut(n: int, before: float, after: float) -> Floats:
    """[n, n]: a line of n cells read between two cuts (shares of it) instead of whole; its ends go on for ever."""
    place = np.clip(((np.arange(n) + 0.5) / n * (1 - before - after) + before) * n - 0.5, 0, n - 1)
    left = np.floor(place).astype(int)
    weights = np.zeros((n, n), np.float32)
    np.add.at(weights, (np.arange(n), left), 1 - (place - left))
    np.add.at(weights, (np.arange(n), np.minimum(left + 1, n - 1)), place - left)
    return weights


def _waves(n: int) -> Floats:
    """[9, 8, n]: the 8 lowest cosine frequencies of a line, read whole and with 8 cuts."""
    d, e = MOST_CROPPED, MOST_CROPPED / 2
    cuts = [(0, 0), (d, 0), (0, d), (e, e), (d, d), (-d, -d), (-e, -e), (-d, 0), (0, -d)]
    basis = np.asarray(dct(np.eye(n), axis=0, norm="ortho"))[:8]
    return np.array([basis @ _cut(n, before, after) for before, after in cuts], np.float32)


def _blur(n: int) -> Floats:
    return np.asarray(gaussian_filter1d(np.eye(n, dtype=np.float32), _COARSE, axis=0, mode="nearest"), np.float32)


_BLUR_X, _BLUR_Y = _blur(WIDTH), _blur(HEIGHT)
_CUTS_X = np.array([_cut(WIDTH, *cuts) for cuts in product(_STEPS, _STEPS)])
_CUTS_Y = np.array([_cut(HEIGHT, *cuts) for cuts in product(_STEPS, _STEPS)])
_WAVES_X, _WAVES_Y = _waves(WIDTH), _waves(HEIGHT)
