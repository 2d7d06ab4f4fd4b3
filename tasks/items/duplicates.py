# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (scipy publishes no types)
"""Dialogues that are the beginning of another: items that grew between two looks at the same talk."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tasks.items.near_duplicates import ENOUGH_TEXT
from tasks.records import Sample


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


def group_linked(count: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return [count] the group number of each item; items that `pairs` link, directly or not, share one."""
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


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
