"""Compare images by appearance: perceptual hashes, cached by digest, and a precise comparison of two files.

Different screens of one kind have similar hashes, so similar hashes only propose a pair. `is_same_picture` aligns the
two pictures and decides whether one is a copy of the other, saved again or cropped.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dct
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from tasks.items.images import FORMATS
from tasks.items.pixels import render_pixels
from tasks.media import ImageRef
from tasks.storage.digest_cache import DigestCache

Floats = NDArray[np.float32]

WIDTH, HEIGHT = 64, 96
"""Size in pixels of the grey thumbnails that are compared, whatever the image's own shape."""
SAME = 0.935
"""Two files show the same picture if their correlation is at least this. Measured on the demo's 112×168 screens: copies
saved as JPEG (quality 20 or more), scaled by 0.5 to 1.7, or cropped by 1.5 to 3 % have at least 0.94; the closest of
145,000 pairs of different screens has 0.93."""
MOST_CROPPED = 0.03
"""A picture that is cropped by up to this share per side still counts as the same."""
_STEPS = (0.0, MOST_CROPPED / 2, MOST_CROPPED)
_COARSE = 4.0
"""Blur radius in thumbnail pixels: slower changes of brightness are not fine structure."""
_AT_ONCE = 1000
_RECIPE = 2
"""Version of the hash; raise it when a change gives the same picture another hash."""
_SIGNED = 1 << 63
"""Offset that moves a hash into the range of SQLite's signed integers."""


class ImageHashes:
    """Computes the perceptual hash of each image once, and stores it in a SQLite file or in memory.

    Several runs may share the file. A hash has 64 bits. Each says whether one of the picture's 8×8 lowest cosine
    frequencies is above their median. Source: "pHash" in Christoph Zauner, Implementation and Benchmarking of
    Perceptual Image Hash Functions (2010).
    """

    def __init__(self, file: Path | None = None) -> None:
        self._cache = DigestCache(file, f"picture-hash-{_RECIPE}")

    def hashes(self, images: Iterable[ImageRef]) -> Mapping[str, int]:
        """Map each image's sha256 to its hash, an unsigned number; unreadable images are left out."""
        distinct = {image.sha256: image for image in images}
        found = {sha256: value + _SIGNED for sha256, value in self._cache.get(distinct).items()}
        missing = [image for sha256, image in distinct.items() if sha256 not in found]
        with ThreadPoolExecutor() as pool:  # decoding, nearly all of the work, releases the interpreter's lock
            thumbnails = pool.map(make_thumbnail, missing)
            new = {
                image.sha256: int(compute_hashes(shown)[0])
                for image, shown in zip(missing, thumbnails, strict=True)
                if shown is not None
            }
        self._cache.put({sha256: value - _SIGNED for sha256, value in new.items()})
        return found | new


def make_thumbnail(image: ImageRef) -> Floats | None:
    """Return the upright picture in grey as an array [HEIGHT, WIDTH]; None if the file cannot be read."""
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            file.draft("L", (4 * WIDTH, 4 * HEIGHT))  # a JPEG is decoded at a fraction of its size
            grey = render_pixels(file).convert("L")
            return np.asarray(grey.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), np.float32)
    except Exception:  # decoders raise all kinds of errors on broken bytes; read_samples reports such files
        return None


def compute_hashes(shown: Floats) -> NDArray[np.uint64]:
    """Return the hash of a thumbnail and those of 80 versions with up to 3 % cropped from or added to its sides."""
    low = np.einsum("yfh,hw,xgw->yxfg", _WAVES_Y, shown, _WAVES_X, optimize=True).reshape(-1, 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def is_same_picture(one: ImageRef, other: ImageRef) -> bool:
    """Return whether both files show the same picture (see `find_same_pictures`)."""
    return bool(find_same_pictures([(one, other)]))


def find_same_pictures(pairs: Iterable[tuple[ImageRef, ImageRef]]) -> set[tuple[str, str]]:
    """Return the digests of each pair that shows the same picture, perhaps saved again, scaled or cropped by up to 3 %.

    Files with equal digests always do. For other files, the fine structure of one must correlate with that of one of 81
    crops of the other by at least `SAME`. A file that cannot be read matches no file with another digest. The crops of
    a picture are made once for all its pairs, since among screens of one layout most pairs must be compared.
    """
    listed = list(pairs)
    wanted = {(one.sha256, other.sha256) for one, other in listed}
    paths = {image.sha256: image.path for pair in listed for image in pair}
    partners: dict[str, set[str]] = defaultdict(set)
    for one, other in wanted:
        if one != other:
            partners[one].add(other)
            partners[other].add(one)
    same = {pair for pair in wanted if pair[0] == pair[1]}
    for whole, others in partners.items():
        known = [other for other in others if _find_structure(paths[other]) is not None]
        crops = _make_crops(paths[whole]) if known else None
        for start in range(0, len(known) if crops is not None else 0, _AT_ONCE):
            some = known[start : start + _AT_ONCE]
            likeness = (crops @ np.array([_find_structure(paths[other]) for other in some]).T).max(axis=0)
            found = [other for other, value in zip(some, likeness.tolist(), strict=True) if value >= SAME]
            same |= wanted & {pair for other in found for pair in ((whole, other), (other, whole))}
    return same


@lru_cache(maxsize=4096)
def _find_structure(path: str) -> Floats | None:
    """Return a picture's fine structure as a vector of length 1; None if the file cannot be read."""
    shown = _smooth(path)
    return None if shown is None else _scale(_fine(shown).reshape(1, -1))[0]


def _make_crops(path: str) -> Floats | None:
    """Return the fine structure of 81 crops of a picture as vectors of length 1; None if the file cannot be read."""
    shown = _smooth(path)
    if shown is None:
        return None
    crops = np.asarray((_CUTS_Y @ shown)[:, None] @ np.swapaxes(_CUTS_X, 1, 2), np.float32)
    return _scale(_fine(crops).reshape(len(_CUTS_Y) * len(_CUTS_X), -1))


def _scale(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _fine(shown: Floats) -> Floats:
    return np.asarray(shown - _BLUR_Y @ shown @ _BLUR_X.T, np.float32)


@lru_cache(maxsize=4096)
def _smooth(path: str) -> Floats | None:
    shown = make_thumbnail(ImageRef(path=path, sha256="", width=1, height=1))
    return None if shown is None else np.asarray(gaussian_filter(shown, 0.7), np.float32)


def _cut(n: int, before: float, after: float) -> Floats:
    """Return the matrix [n, n] that stretches a line of n cells, cropped at both ends (shares), to n cells again."""
    place = np.clip(((np.arange(n) + 0.5) / n * (1 - before - after) + before) * n - 0.5, 0, n - 1)
    left = np.floor(place).astype(int)
    weights = np.zeros((n, n), np.float32)
    np.add.at(weights, (np.arange(n), left), 1 - (place - left))
    np.add.at(weights, (np.arange(n), np.minimum(left + 1, n - 1)), place - left)
    return weights


def _waves(n: int) -> Floats:
    """Return [9, 8, n]: the 8 lowest cosine frequencies of a line, whole and with 8 crops or extensions."""
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
