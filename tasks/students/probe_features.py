"""Compute frozen features of items: hashed character n-grams of texts, and a few hundred numbers per image.

Nothing is fitted to labels, so the features of an image are computed once for all folds.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

from tasks.items.pixels import render_pixels
from tasks.models.packages import require_model_packages
from tasks.models.unanswered import BadMedia
from tasks.records import ImageRef, Sample, TextPart
from tasks.students.settings import ProbeSpec

log = logging.getLogger("labelstill")

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]

BUCKETS = 1 << 17
"""Number of hash buckets; a thousand long dialogues have about as many different n-grams of up to 3 characters."""
_SIDE = 128
_GRID = 8
_ORIENTATIONS = 9
_HSV_BINS = (12, 4, 4)


def join_dialogue_text(sample: Sample) -> str:
    """Return the item's text parts, joined by line breaks."""
    return "\n".join(part.text for part in sample.parts if isinstance(part, TextPart))


def join_image_text(sample: Sample, texts: Mapping[str, str]) -> str:
    """Return the text on the item's images, in the order of the images; `texts` maps image digest to text."""
    return "\n".join(texts.get(image.sha256, "") for image in sample.images)


def count_ngrams(texts: Iterable[str], ngrams: tuple[int, int]) -> csr_matrix:
    """Return counts of hashed character n-grams: one row per text, BUCKETS columns."""
    hashing: Any = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=ngrams,
        n_features=BUCKETS,
        norm=None,  # pyright: ignore[reportArgumentType]
        alternate_sign=False,
    )
    return csr_matrix(hashing.transform(texts), dtype=np.float32)


def describe_images(spec: ProbeSpec, samples: Sequence[Sample]) -> dict[str, Vector]:
    """Map the digest of each image of `samples` to a feature vector; return {} for `images: none`.

    A vector contains colour and gradient histograms, or the mean output of the vision tower of `embedding_model`. An
    image that can no longer be read is logged and left out. Raises EngineError when the model cannot be loaded.
    """
    if spec.images == "none":
        return {}
    images = list({image.sha256: image for sample in samples for image in sample.images}.values())
    describe = _choose_describer(spec.embedding_model)
    # Decoding, most of the work, releases the interpreter's lock; the vision tower uses all cores by itself.
    workers = 1 if spec.embedding_model is not None else os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        vectors = zip(images, pool.map(partial(_describe_or_warn, describe), images), strict=True)
        return {image.sha256: vector for image, vector in vectors if vector is not None}


def pool_images(samples: Sequence[Sample], features: Mapping[str, Vector]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return one row per sample: the mean of its images' features, or NaN if `features` has none of them."""
    width = len(next(iter(features.values()))) if features else 0
    rows = np.full((len(samples), width), np.nan, np.float32)
    for row, sample in enumerate(samples):
        known = [features[image.sha256] for image in sample.images if image.sha256 in features]
        if known:
            rows[row] = np.mean(known, axis=0)
    return rows


def _choose_describer(embedding_model: str | None) -> Callable[[ImageRef], Vector]:
    if embedding_model is None:
        return _compute_histograms
    require_model_packages("`student.embedding_model`")
    from tasks.students.probe_embeddings import make_embedder  # here, because it loads torch

    return make_embedder(embedding_model)


def _describe_or_warn(describe: Callable[[ImageRef], Vector], image: ImageRef) -> Vector | None:
    try:
        return describe(image)
    except (OSError, BadMedia) as error:
        log.warning("the probe ignores an image: %s", error)
        return None


def _compute_histograms(image: ImageRef) -> Vector:
    """Return 960 numbers: a colour histogram (HSV), colours on a grid, and gradient orientations on a grid.

    Square roots of shares are used, so that Euclidean distance is the Hellinger distance. Source of the gradients:
    Dalal and Triggs, Histograms of oriented gradients (2005), here without overlapping blocks.
    """
    picture = _open_small(image)
    hsv = np.asarray(picture.convert("HSV"), np.float32).reshape(-1, 3)
    colours, _ = np.histogramdd(hsv, bins=_HSV_BINS, range=[(0, 256)] * 3)
    layout = np.asarray(picture.resize((_GRID, _GRID), Image.Resampling.BOX), np.float32).ravel() / 255
    gradients = _compute_gradients(np.asarray(picture.convert("L"), np.float32) / 255)
    return np.concatenate([_compute_root_shares(colours.ravel()), layout / _GRID, gradients / _GRID]).astype(np.float32)


def _compute_gradients(grey: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    down, across = np.gradient(grey)
    strength = np.hypot(down, across)
    # the direction of an edge, whichever side is brighter
    angle = np.mod(np.arctan2(down, across), np.pi)
    bins = np.minimum((angle / np.pi * _ORIENTATIONS).astype(int), _ORIENTATIONS - 1)
    rows, columns = np.indices(grey.shape) * _GRID // _SIDE
    cells = (rows * _GRID + columns) * _ORIENTATIONS + bins
    weights = np.bincount(cells.ravel(), strength.ravel(), _GRID * _GRID * _ORIENTATIONS)
    by_cell = weights.reshape(_GRID * _GRID, _ORIENTATIONS)
    # the constant keeps noise in an empty cell from looking like an edge
    return np.sqrt(by_cell / (by_cell.sum(1, keepdims=True) + 1.0)).ravel()


def _compute_root_shares(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.sqrt(counts / max(counts.sum(), 1))


def _open_small(image: ImageRef) -> Image.Image:
    try:
        with Image.open(image.path) as file:
            file.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # a JPEG is decoded at a fraction of its size
            upright = render_pixels(file)
    except Exception as error:
        raise OSError(f"{image.path}: cannot be decoded ({error}); replace the file") from error
    return upright.resize((_SIDE, _SIDE), Image.Resampling.BOX)
