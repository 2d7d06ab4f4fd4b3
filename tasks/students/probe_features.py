"""Compute frozen features of items: hashed character n-grams of texts, and a few hundred numbers per image.

Nothing is fitted to labels, so the features of an image are computed once for all folds.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

from tasks.items.key_frames import choose_key_frames, list_pictures
from tasks.items.pixels import render_pixels
from tasks.media import ImageRef, TextPart
from tasks.models.engines.identity import identify_checkpoint
from tasks.models.packages import require_model_packages
from tasks.models.unanswered import BadMedia
from tasks.records import Sample
from tasks.storage.digest_cache import DigestCache
from tasks.students.settings import ProbeSpec

log = logging.getLogger("labelstill")

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]

BUCKETS = 1 << 18
"""Number of hash buckets; a thousand long dialogues have about as many different n-grams."""
_NGRAMS = (1, 4)
"""Shortest and longest n-gram, in characters."""
_SPEAKER = re.compile(r"\s*([^:：\n]{1,20}?)\s*[:：]")
"""The beginning of a dialogue turn that says who speaks."""
_BACKGROUND = 24
"""Largest difference, of 255, between a pixel of the background and the colour of the border."""
_RECIPE = 2
"""Version of the histograms; raise it when the same picture gets other numbers."""
_SIDE = 128
_GRID = 8
_ORIENTATIONS = 9
_HSV_BINS = (12, 4, 4)


def list_texts(sample: Sample, texts: Mapping[str, str]) -> dict[str, str]:
    """Return the texts that say something about the item, by name.

    `dialogue` is its text, with the user's turns twice; `user` is the user's turns alone, the last one three times, or
    empty if there are no turns; `shown` is the text on its images and recordings, which `texts` maps from their
    digests. On real dialogues the user's turns alone tell more than all (55 % of the intents, against 48.5 %).
    """
    parts = [part for part in sample.parts if isinstance(part, TextPart)]
    last = [part.text for part in parts if part.turn == sample.user_turn > 0]
    name = _find_speaker("\n".join(last))
    user = [part.text for part in parts if name and _find_speaker(part.text) == name]
    return {
        "dialogue": "\n".join([*(part.text for part in parts), *user]),
        "user": "\n".join([*user, *last * 2]),
        "shown": "\n".join(texts.get(media.sha256, "") for media in (*sample.images, *sample.videos)),
    }


def _find_speaker(turn: str) -> str | None:
    found = _SPEAKER.match(turn)
    return found and found.group(1)


def count_ngrams(texts: Iterable[str]) -> csr_matrix:
    """Return counts of hashed character n-grams: one row per text, BUCKETS columns."""
    hashing: Any = HashingVectorizer(
        analyzer="char",
        ngram_range=_NGRAMS,
        n_features=BUCKETS,
        norm=None,  # pyright: ignore[reportArgumentType]
        alternate_sign=False,
    )
    return csr_matrix(hashing.transform(texts), dtype=np.float32)


def describe_images(spec: ProbeSpec, samples: Sequence[Sample], folder: Path | None = None) -> dict[str, Vector]:
    """Map the digest of each image and key frame of `samples` to a feature vector; return {} for `images: none`.

    A vector contains colour and gradient histograms, or the mean output of the vision tower of `embedding_model`. The
    vectors are kept in `folder`/features.sqlite and used again. An image that can no longer be read is logged and left
    out. Raises EngineError when the model cannot be loaded.
    """
    if spec.images == "none":
        return {}
    wanted = {picture.sha256: picture for sample in samples for picture in list_pictures(sample)}
    recipe = (
        f"histograms-{_RECIPE}" if spec.embedding_model is None else identify_checkpoint(spec.embedding_model, None)
    )
    cache = DigestCache(folder and folder / "features.sqlite", recipe)
    known: dict[str, Vector] = {d: np.frombuffer(v, np.float32) for d, v in cache.get(wanted).items()}
    images = [image for digest, image in wanted.items() if digest not in known]
    if not images:
        return known
    describe = _choose_describer(spec.embedding_model)
    # Decoding, most of the work, releases the interpreter's lock; the vision tower uses all cores by itself.
    workers = 1 if spec.embedding_model is not None else os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        vectors = zip(images, pool.map(partial(_describe_or_warn, describe), images), strict=True)
        new = {image.sha256: vector for image, vector in vectors if vector is not None}
    cache.put({digest: vector.astype(np.float32).tobytes() for digest, vector in new.items()})
    return known | new


def pool_images(samples: Sequence[Sample], features: Mapping[str, Vector]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return one row per sample: the mean of the features of its images and recordings, or NaN if none is known.

    The features of a recording are the mean of those of its key frames.
    """
    width = len(next(iter(features.values()))) if features else 0
    rows = np.full((len(samples), width), np.nan, np.float32)
    for row, sample in enumerate(samples):
        shown = [[image] for image in sample.images] + [choose_key_frames(video) for video in sample.videos]
        found = [[features[p.sha256] for p in pictures if p.sha256 in features] for pictures in shown]
        known = [np.mean(vectors, axis=0) for vectors in found if vectors]
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
    return _crop_border(upright).resize((_SIDE, _SIDE), Image.Resampling.BOX)


def _crop_border(picture: Image.Image) -> Image.Image:
    """Cut off a border of one colour, as around a drawing. The picture keeps its proportions."""
    grey = np.asarray(picture.convert("L"), np.int16)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    drawn = np.abs(grey - np.median(border)) > _BACKGROUND
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not len(rows):
        return picture
    (top, bottom), (left, right) = rows[[0, -1]] + (0, 1), columns[[0, -1]] + (0, 1)
    share = max((bottom - top) / picture.height, (right - left) / picture.width)
    if share >= 1:
        return picture
    height, width = share * picture.height, share * picture.width
    x, y = (left + right - width) / 2, (top + bottom - height) / 2
    colour = picture.getpixel((0, 0))
    return picture.transform(
        (max(1, round(width)), max(1, round(height))),
        Image.Transform.AFFINE, (1, 0, x, 0, 1, y),
        fillcolor=colour,
    )  # fmt: skip
