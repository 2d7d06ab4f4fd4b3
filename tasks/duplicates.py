# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (scikit-learn and scipy publish no types)
"""Items that show and say nearly the same, and dialogues that are the beginning of another.

Screens of one kind look alike to a perceptual hash, so an image alone proves little: texts must be near as well.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from tasks.image_files import FORMATS
from tasks.records import ImageRef, Sample

ENOUGH_TEXT = 20
"""Characters from which on a text says something of its own: `user: hello` opens thousands of dialogues."""
TEXT_ONLY_SIMILARITY = 0.95
"""Least similarity of items without images, where no picture has to agree as well."""
_WORDLESS_DISTANCE = 1
"""Most differing bits where the text is too short to tell items apart. Of 7,800 pairs of different screens of one kind,
9 are within 4 bits and 1 is within 1; at 4, the 2,000 screens of a kind would chain into one group."""
_BLOCK = 256
"""Texts compared with the others at a time; bounds memory to 256 × items similarities."""


def near_duplicates(
    samples: Sequence[Sample],
    *,
    text_similarity: float = 0.9,
    hash_distance: int = 4,
    hashes: Mapping[str, int] | None = None,
) -> list[tuple[int, int]]:
    """Pairs of positions (the lower first, ascending) of items that are near in image *and* text.

    Images: as many in both, each pair in order within `hash_distance` bits of `hashes` (64-bit hash by sha256, made
    here when None); within 1 bit where the longer text has under 20 characters. An item with an image that has no hash
    is near nothing. Texts: cosine of TF-IDF weighted character trigrams at least `text_similarity` (without images
    at least 0.95), and the shorter's length at least `text_similarity`² of the longer's: what that cosine comes to when
    one text goes on where the other ends. Task and label don't count. Items of equal text and hashes are paired only
    with the first of them, so that n copies make n - 1 pairs; which is the first depends on the order, who hangs
    together doesn't.

    Measured on 20,000 dialogues of 600 characters: 20 s of one core, 0.5 GiB; on 20,000 images without text: 7 s.
    Source of the weights: scikit-learn's TfidfTransformer (sublinear).
    """
    if hashes is None:
        hashes = perceptual_hashes(image for sample in samples for image in sample.images)
    pairs: list[tuple[int, int]] = []
    first: dict[tuple[str, tuple[int, ...]], int] = {}
    for i, sample in enumerate(samples):
        if all(image.sha256 in hashes for image in sample.images):
            key = (_text(sample), tuple(hashes[image.sha256] for image in sample.images))
            if (copied := first.setdefault(key, i)) != i:
                pairs.append((copied, i))
    by_length = sorted(first.items(), key=lambda entry: len(entry[0][0]))
    texts = [text for (text, _), _ in by_length]
    counts = np.array([len(shown) for (_, shown), _ in by_length], dtype=int)
    if not texts:
        return []
    vectors = _vectors(texts)
    for count in sorted(set(counts.tolist())):
        rows = np.flatnonzero(counts == count)
        lengths = np.array([len(texts[row]) for row in rows])
        bits = np.array([by_length[row][0][1] for row in rows], dtype=np.uint64)
        least = text_similarity if count else max(text_similarity, TEXT_ONLY_SIMILARITY)
        for a, b in _near(vectors[rows], lengths, bits, least, hash_distance):
            i, j = by_length[rows[a]][1], by_length[rows[b]][1]
            pairs.append((min(i, j), max(i, j)))
    return sorted(pairs)


def perceptual_hashes(images: Iterable[ImageRef]) -> dict[str, int]:
    """The 64-bit difference hash of each image, by sha256; an image that can't be read has none.

    A bit says whether brightness rises from one pixel to its right neighbour in the picture at 9×8 pixels, upright.
    Source: Neal Krawetz, "Kind of Like That", The Hacker Factor Blog (2013).
    """
    distinct = {image.sha256: image for image in images}
    with ThreadPoolExecutor() as pool:  # decoding, nearly all of the work, leaves the interpreter's lock
        found = pool.map(_difference_hash, distinct.values())
        return {sha256: value for sha256, value in zip(distinct, found, strict=True) if value is not None}


def grown_dialogues(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Pairs of positions (beginning, longer): the first item's lines and images are the beginning of the second's.

    Whole lines count, spaces around them don't; the beginning must have at least 20 characters of text. An item is
    paired with its longest beginning only (that one is itself paired with the next shorter), or, where another item
    before it says all the same, with that one.
    """
    whole: dict[bytes, int] = {}
    beginnings: list[list[bytes]] = []
    for i, sample in enumerate(samples):
        beginnings.append([digest for characters, digest in _beginnings(sample) if characters >= ENOUGH_TEXT])
        if beginnings[-1]:
            whole.setdefault(beginnings[-1][-1], i)
    pairs: list[tuple[int, int]] = []
    for i, digests in enumerate(beginnings):
        others = (whole[digest] for digest in reversed(digests) if whole.get(digest, i) != i)
        pairs += [(other, i) for other in islice(others, 1)]
    return pairs


def _beginnings(sample: Sample) -> Iterator[tuple[int, bytes]]:
    """(characters of text so far, digest of all so far) after each line and each image; the last is of the whole."""
    hasher = hashlib.sha256()
    characters = 0
    for part in sample.parts:
        units = [part.image.sha256] if part.type == "image" else part.text.splitlines()
        for unit in filter(None, map(str.strip, units)):
            characters += len(unit) if part.type == "text" else 0
            hasher.update(f"{part.type} {unit}\n".encode())
            yield characters, hasher.digest()


def _text(sample: Sample) -> str:
    return " ".join("\n".join(part.text for part in sample.parts if part.type == "text").split())


def _vectors(texts: Sequence[str]) -> Any:
    """[N, 2^20] sparse, rows of length 1. Hashed, so that memory doesn't grow with the number of different trigrams."""
    options: dict[str, Any] = {"norm": None, "dtype": np.float32, "alternate_sign": False}
    counter = HashingVectorizer(analyzer="char", ngram_range=(3, 3), n_features=2**20, **options)
    # the marks at both ends give the shortest text, and none at all, a trigram
    counts = counter.transform([f"\2\2{text}\3\3" for text in texts])
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def _near(
    vectors: Any, lengths: NDArray[np.int64], bits: NDArray[np.uint64], least: float, distance: int
) -> Iterator[tuple[int, int]]:
    """Pairs of rows, for rows in order of text length, `bits` [N, images]."""
    for start in range(0, len(lengths), _BLOCK):
        stop = min(start + _BLOCK, len(lengths))
        reach = int(np.searchsorted(lengths * least**2, lengths[stop - 1], side="right"))
        likeness = (vectors[start:reach] @ vectors[start:stop].T).tocoo()
        alike = likeness.data >= least - 1e-6  # float32: equal texts come to 0.9999999
        a, b = start + likeness.col[alike], start + likeness.row[alike]
        fit = (a < b) & (lengths[b] * least**2 <= lengths[a])
        a, b = a[fit], b[fit]
        for column in range(bits.shape[1]):
            most = np.where(lengths[b] < ENOUGH_TEXT, min(distance, _WORDLESS_DISTANCE), distance)
            fit = np.bitwise_count(bits[a, column] ^ bits[b, column]) <= most
            a, b = a[fit], b[fit]
        yield from zip(a.tolist(), b.tolist(), strict=True)


def _difference_hash(image: ImageRef) -> int | None:
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            file.draft("L", (288, 256))  # a JPEG is unpacked at a fraction of its size
            upright = ImageOps.exif_transpose(file).convert("L")
            grey = np.asarray(upright.resize((9, 8), Image.Resampling.LANCZOS))
    except Exception:  # decoders raise whatever their arithmetic runs into; the intake is who reports such files
        return None
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes())
