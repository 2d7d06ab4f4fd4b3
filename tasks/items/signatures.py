"""Compute compact signatures of items (digests, MinHash, image hashes), so that a million fit into memory."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]

from tasks.items.image_hashes import ImageHashes
from tasks.items.key_frames import list_pictures
from tasks.records import Sample, content_digest

PERMUTATIONS = 64
_SEED = 1
_BATCH = 2000
_DIGITS = re.compile(r"\d+")
_NEAR_NOTHING = -1


@dataclass(frozen=True)
class Signatures:
    """The signatures of N items, in input order; about 300 bytes per item."""

    content: NDArray[np.bytes_]
    """[N] 16 bytes of the content's digest, equal for exact copies. For free text, it includes the given text."""
    text_digest: NDArray[np.uint64]
    """[N] Digest of the normalised text."""
    length: NDArray[np.int32]
    """[N] Characters of the normalised text."""
    minhash: NDArray[np.uint32]
    """[N, 64] MinHash values of the text's trigrams."""
    images: NDArray[np.int32]
    """[N] Number of pictures: images, and key frames of recordings; -1 if one of them cannot be read. Such an item is
    not compared with others."""
    image_hash: NDArray[np.uint64]
    """[N] Perceptual hash of the first picture; 0 without pictures."""

    def __len__(self) -> int:
        return len(self.content)

    def estimate_similarity(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
        """Estimate the Jaccard similarity of the texts at positions `a` and `b`; the standard error is at most 0.06."""
        found = np.empty(len(a))
        for start in range(0, len(a), 100_000):
            part = slice(start, start + 100_000)
            found[part] = (self.minhash[a[part]] == self.minhash[b[part]]).mean(axis=1)
        return found


def normalise_text(sample: Sample) -> str:
    """Return the item's text with unified Unicode form, case and white space, and with 0 for every number.

    Items that differ only in a price or an order number are therefore near-duplicates.
    """
    return normalise("\n".join(part.text for part in sample.parts if part.type == "text"))


def normalise(text: str) -> str:
    """Return the text with unified Unicode form, case and white space, and with 0 for every number."""
    return _DIGITS.sub("0", " ".join(unicodedata.normalize("NFKC", text).casefold().split()))


def split_trigrams(text: str) -> list[str]:
    """Return the character trigrams of a text. Marks are added at both ends, so even an empty text has trigrams."""
    marked = f"\2\2{text}\3\3"
    return [marked[i : i + 3] for i in range(len(marked) - 2)]


def compute_signatures(samples: Iterable[Sample], image_hashes: ImageHashes) -> Signatures:
    """Compute the signatures of all `samples`, with a few thousand of them in memory at a time.

    MinHash values are computed by rensa's RMinHash. Measured: 60 µs per item of 200 characters, with its image's hash
    in the cache.
    """
    batches = [_sign(batch, image_hashes) for batch in _batches(iter(samples))] or [_sign([], image_hashes)]
    return Signatures(*(np.concatenate(columns) for columns in zip(*map(_columns, batches), strict=True)))


def _batches(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    while batch := list(islice(samples, _BATCH)):
        yield batch


def _sign(samples: Sequence[Sample], image_hashes: ImageHashes) -> Signatures:
    texts = [normalise_text(s) for s in samples]
    shown = [list_pictures(s) for s in samples]
    hashes = image_hashes.hashes(picture for pictures in shown for picture in pictures)
    whole = [all(picture.sha256 in hashes for picture in pictures) for pictures in shown]
    rows = RMinHash.digest_matrix_from_token_sets(list(map(split_trigrams, texts)), PERMUTATIONS, _SEED).to_rows()
    return Signatures(
        content=np.array([_content(s) for s in samples], dtype="S16"),
        text_digest=np.array([_digest(text) for text in texts], dtype=np.uint64),
        length=np.array([len(text) for text in texts], dtype=np.int32),
        minhash=np.array(rows, dtype=np.uint32).reshape(-1, PERMUTATIONS),
        images=np.array([len(seen) if w else _NEAR_NOTHING for seen, w in zip(shown, whole, strict=True)], np.int32),
        image_hash=np.array(
            [hashes[seen[0].sha256] if w and seen else 0 for seen, w in zip(shown, whole, strict=True)],
            dtype=np.uint64,
        ),
    )


def _columns(signatures: Signatures) -> list[NDArray[Any]]:
    return [getattr(signatures, column.name) for column in fields(signatures)]


def _content(sample: Sample) -> bytes:
    digest = content_digest(sample)
    if not sample.labels:  # several captions of one image are not copies of each other
        digest = hashlib.sha256(f"{digest} {sample.given}".encode()).hexdigest()
    return bytes.fromhex(digest)[:16]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
