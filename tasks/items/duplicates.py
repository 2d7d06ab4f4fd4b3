"""Find near-duplicates among many items: similar signatures propose pairs, whose items are then compared exactly.

Images and text are compared together, because screens of one kind look alike and thousands of dialogues begin with the
same greeting.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tasks.items.image_hashes import ImageHashes, compute_hashes, find_same_pictures, make_thumbnail
from tasks.items.key_frames import list_pictures
from tasks.items.signatures import (
    PERMUTATIONS,
    Signatures,
    compute_signatures,
    normalise,
    normalise_text,
    split_trigrams,
)
from tasks.media import ImageRef, digest_part
from tasks.records import Sample

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

ALONE = 0.85
"""Two items without images are near-duplicates if the Jaccard similarity of their trigrams is at least this."""
WITH_IMAGES = 0.6
"""The same minimum for items whose images show the same pictures: one word of a short question may differ."""
ENOUGH_TEXT = 20
"""Minimum characters of a text for a partial match to propose a pair: `user: hello` begins thousands of dialogues."""
_ROWS = 5
"""MinHash values per band: 12 bands of 5 propose 99 % of the pairs of similarity 0.8, and 17 % of those of 0.4."""
_SLACK = 0.2
"""How far a MinHash estimate may be too low: three standard deviations."""
_BITS, _CROPPED_BITS, _ANY_CROP_BITS = 3, 8, 24
"""Maximum number of differing bits between hashes of the same picture: saved again; cropped by up to 3 %, compared with
the nearest of 81 crops; cropped, compared with the whole. Measured maxima on the demo's screens: 2, 6 and 18."""
_CROWD = 64
"""In a bucket of more than this many items, each is compared with the next 64 in the order of text and image hash, and
with all evaluation items of the bucket, none of which may be missed."""
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Item:
    """The normalised text and the pictures of an item, by which near-duplicates are recognised."""

    text: str
    images: tuple[ImageRef, ...]
    """Its images and the key frames of its recordings."""
    question: str
    """The normalised text of the user's latest turn. If no turns are known, it is the last line of the text."""


def make_comparable_item(sample: Sample) -> Item:
    """Return the normalised text, the pictures and the latest question of a sample."""
    texts = [part for part in sample.parts if part.type == "text"]
    asked = "\n".join(part.text for part in texts if part.turn == sample.user_turn).strip()
    if not sample.user_turn:
        asked = asked.rpartition("\n")[2]
    return Item(normalise_text(sample), list_pictures(sample), normalise(asked))


def is_near(one: Item, other: Item) -> bool:
    """Return whether two items are near-duplicates: similar texts, and the same pictures in the same order."""
    return bool(_keep_near([(one, other)]))


def _keep_near(pairs: Iterable[tuple[Item, Item]]) -> list[int]:
    """Return the positions of the pairs that are near-duplicates. Their pictures are compared together."""
    similar = {
        position: list(zip(one.images, other.images, strict=True))
        for position, (one, other) in enumerate(pairs)
        if len(one.images) == len(other.images)
        and _is_similar(one.text, other.text, WITH_IMAGES if one.images else ALONE)
    }
    same = find_same_pictures(pair for shown in similar.values() for pair in shown)
    return [at for at, shown in similar.items() if all((x.sha256, y.sha256) in same for x, y in shown)]


def is_same_question(one: Item, other: Item) -> bool:
    """Return whether two near-duplicates also ask the same: similar latest questions at the same point of a dialogue.

    Data with one row per turn contains the same dialogue several times, each time with another question at its end.
    """
    shorter, longer = sorted((one.text, other.text), key=len)
    if longer.startswith(f"{shorter} "):
        return False
    return _is_similar(one.question, other.question, WITH_IMAGES if one.images else ALONE)


def _is_similar(one: str, other: str, least: float) -> bool:
    a, b = set(split_trigrams(one)), set(split_trigrams(other))
    return len(a & b) >= least * len(a | b)


def find_near_duplicates(samples: Sequence[Sample], image_hashes: ImageHashes) -> list[tuple[int, int]]:
    """Return the positions of each pair of equal or near-duplicate `samples`, whatever their tasks and labels.

    Each pair has the lower position first, and pairs are sorted. Of n equal samples, each later one is paired only with
    the first, which makes n - 1 pairs.
    """
    signatures = compute_signatures(samples, image_hashes)
    pairs = find_near_pairs(
        signatures, len(samples), lambda places: {i: make_comparable_item(samples[i]) for i in places}
    )
    first = np.unique(signatures.content, return_index=True, return_inverse=True)[1:]
    copies = [(int(i), j) for j, i in enumerate(first[0][first[1]]) if i != j]
    return sorted(pairs + copies)


def find_near_pairs(
    signatures: Signatures, count: int, fetch: Callable[[Collection[int]], Mapping[int, Item]]
) -> list[tuple[int, int]]:
    """Return the positions of each pair of near-duplicate items: the lower position first, pairs sorted.

    The first `count` items are to be merged; the others are the evaluation split. Pairs within the evaluation split are
    left out, and cropped copies of its images are found too. Where items of the same part have equal content, only the
    first is compared. In large buckets (items with a common key) some pairs are not found, but each item that is near
    evaluation items is paired with at least one of them. `fetch` takes positions and maps each to its item; it is
    called twice.
    """
    usable = np.concatenate([_distinct(signatures, 0, count), _distinct(signatures, count, len(signatures))])
    held_out = usable[usable >= count]
    items = dict(fetch(set(held_out[signatures.images[held_out] > 0].tolist())))
    proposed = [*_by_text(signatures, usable), *_by_image(signatures, usable)]
    proposed += [_cropped(signatures, usable, place, item.images[0]) for place, item in items.items()]
    size = max(len(signatures), 1)
    coded = [np.minimum(a, b) * size + np.maximum(a, b) for a, b in proposed]
    codes = np.unique(np.concatenate([np.empty(0, np.int64), *coded]))
    a, b = codes // size, codes % size
    fit = (a != b) & (a < count) & (signatures.images[a] == signatures.images[b])
    a, b = a[fit], b[fit]
    least = np.where(signatures.images[a] > 0, WITH_IMAGES, ALONE) - _SLACK
    fit = signatures.estimate_similarity(a, b) >= least
    pairs = list(zip(a[fit].tolist(), b[fit].tolist(), strict=True))
    crowds = _crowds(signatures, usable, count)
    wanted = {place for pair in pairs for place in pair}
    for place, others in crowds.items():
        wanted.update((place,), others.tolist())
    items |= fetch(wanted - items.keys())
    found = [pairs[at] for at in _keep_near((items[i], items[j]) for i, j in pairs)]
    return sorted(found + _stopped_in_crowds(crowds, {i for i, j in found if j >= count}, items))


def find_shown_images(images: Sequence[ImageRef], held_out: Sequence[ImageRef], image_hashes: ImageHashes) -> set[str]:
    """Return the digests of those `images` that show a `held_out` picture, even if it was saved again or cropped."""
    hashes = image_hashes.hashes(images)
    known = {image.sha256: image for image in images if image.sha256 in hashes}
    shown = np.array([hashes[sha256] for sha256 in known], dtype=np.uint64)
    refs = list(known.values())
    found = {image.sha256 for image in held_out} & {image.sha256 for image in images}
    for image in {image.sha256: image for image in held_out}.values():
        maybe = _cut_from(image, shown)
        same = find_same_pictures((refs[i], image) for i in np.flatnonzero(maybe).tolist())
        found |= {shown for shown, _ in same}
    return found


def _distinct(signatures: Signatures, start: int, stop: int) -> Ints:
    """Return the position of the first item of each content from `start` to `stop`, without unreadable items."""
    first = start + np.unique(signatures.content[start:stop], return_index=True)[1].astype(np.int64)
    return np.sort(first[signatures.images[first] >= 0])


def _by_text(signatures: Signatures, usable: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs whose texts are equal (without images) or share a band of MinHash values (long texts)."""
    for items, key, order in _text_keys(signatures, usable):
        yield from _bucketed(items, key, order)


def _text_keys(signatures: Signatures, usable: Ints) -> Iterator[tuple[Ints, Hashes, Hashes]]:
    """Yield (items, keys, order within a key) for each kind of key that near items are likely to share."""
    bare = usable[signatures.images[usable] == 0]
    yield bare, signatures.text_digest[bare], signatures.text_digest[bare]
    long = usable[signatures.length[usable] >= ENOUGH_TEXT]
    order = signatures.text_digest[long] ^ signatures.image_hash[long]
    for start in range(0, PERMUTATIONS - _ROWS + 1, _ROWS):
        key = signatures.images[long].astype(np.uint64)
        for column in range(start, start + _ROWS):
            key = _mixed(key ^ signatures.minhash[long, column].astype(np.uint64))
        yield long, key, order


def _crowds(signatures: Signatures, usable: Ints, count: int) -> dict[int, Ints]:
    """Return, by evaluation item without images, the items to be merged that may be near it in large buckets.

    `_bucketed` pairs only some of those. Items with images need no such search: `_cropped` misses none. Of equal texts
    only the first is searched for.
    """
    crowds: dict[int, Ints] = {}
    bare = usable[signatures.images[usable] == 0]
    asked = bare[bare >= count]
    asked = asked[np.unique(signatures.text_digest[asked], return_index=True)[1]]
    for items, key, _ in _text_keys(signatures, usable) if len(asked) else ():
        by_key, held_out = np.argsort(key, kind="stable"), np.isin(items, asked)
        starts = np.searchsorted(key, key[held_out], "left", by_key)
        stops = np.searchsorted(key, key[held_out], "right", by_key)
        for place, start, stop in zip(items[held_out].tolist(), starts.tolist(), stops.tolist(), strict=True):
            if stop - start > _CROWD:
                others = items[by_key[start:stop]]
                others = others[(others < count) & (signatures.images[others] == 0)]
                fit = signatures.estimate_similarity(others, np.full_like(others, place)) >= ALONE - _SLACK
                crowds[place] = np.union1d(crowds.get(place, others[:0]), others[fit])
    return crowds


def _stopped_in_crowds(
    crowds: Mapping[int, Ints], stopped: Collection[int], items: Mapping[int, Item]
) -> list[tuple[int, int]]:
    """Return pairs of an item of `crowds` and one evaluation item near it: one is enough to exclude the item."""
    found: dict[int, int] = {}
    for place, others in sorted(crowds.items()):
        for i in others.tolist():
            if i not in stopped and i not in found and is_near(items[i], items[place]):
                found[i] = place
    return list(found.items())


def _by_image(signatures: Signatures, usable: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs whose first images' hashes differ in at most 3 of 64 bits: one of four bands is then equal."""
    seeing = usable[signatures.images[usable] > 0]
    shown = signatures.image_hash[seeing]
    for shift in range(0, 64, 16):
        band = (shown >> np.uint64(shift)) & np.uint64(0xFFFF)
        for a, b in _bucketed(seeing, band, shown):
            fit = np.bitwise_count(signatures.image_hash[a] ^ signatures.image_hash[b]) <= _BITS
            yield a[fit], b[fit]


def _cropped(signatures: Signatures, usable: Ints, place: int, image: ImageRef) -> tuple[Ints, Ints]:
    """Return pairs of an evaluation item with the items whose first image may be a crop of its own."""
    others = usable[_cut_from(image, signatures.image_hash[usable])]
    return np.full(len(others), place, np.int64), others


def _cut_from(image: ImageRef, shown: Hashes) -> NDArray[np.bool_]:
    """Return which of these hashes may be of the image or a crop of it; none if the image cannot be read."""
    picture = make_thumbnail(image)
    if picture is None:
        return np.zeros(len(shown), bool)
    whole, *cuts = compute_hashes(picture)
    maybe = np.flatnonzero(np.bitwise_count(shown ^ whole) <= _ANY_CROP_BITS)
    distance = np.bitwise_count(shown[maybe] ^ whole)
    for cut in set(cuts):
        np.minimum(distance, np.bitwise_count(shown[maybe] ^ cut), out=distance)
    found = np.zeros(len(shown), bool)
    found[maybe[distance <= _CROPPED_BITS]] = True
    return found


def _bucketed(items: Ints, key: Hashes, order: Hashes) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of items with equal keys, in chunks; in a large bucket, each item with the next 64 only.

    rensa's RMinHashLSH is not used because it returns every member of a bucket. Measured on 100,000 texts, of which
    10,000 were the same greeting: 50 million pairs, 14 s and 1.2 GiB, against 640,000 pairs, 1.5 s and 0.4 GiB here.
    """
    by_key = np.lexsort((items, order, key))
    items, key = items[by_key], key[by_key]
    for step in range(1, _CROWD + 1):
        equal = np.flatnonzero(key[step:] == key[:-step]) if step < len(key) else np.empty(0, np.int64)
        if not len(equal):
            return
        for start in range(0, len(equal), _CHUNK):
            left = equal[start : start + _CHUNK]
            yield items[left], items[left + step]


def _mixed(key: Hashes) -> Hashes:
    """Mix the bits of a key with SplitMix64's finalizer: every input bit affects every output bit."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


# --- dialogues that grew, and groups of what belongs together ------------------------------------------------


def find_grown_dialogues(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Return pairs of positions (shorter, longer) in which the second dialogue continues the first.

    Whole lines, images and recordings are compared; spaces around a line are ignored. The shorter dialogue must have at
    least 20 characters of text. A dialogue is paired only with the longest one that it continues (which is itself
    paired with the next shorter one), or with an earlier dialogue that has the same lines and images.
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
    """Return the group number of each of `count` items; items that `pairs` link, directly or indirectly, share one."""
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _beginnings(sample: Sample) -> Iterator[tuple[int, bytes]]:
    """Yield (characters of text, digest) of the item up to each line, image and recording; the last pair covers all."""
    hasher = hashlib.sha256()
    characters = 0
    for part in sample.parts:
        units = part.text.splitlines() if part.type == "text" else [digest_part(part)]
        for unit in filter(None, map(str.strip, units)):
            characters += len(unit) if part.type == "text" else 0
            hasher.update(f"{part.type} {unit}\n".encode())
            yield characters, hasher.digest()
