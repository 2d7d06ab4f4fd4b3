"""What becomes of every item of a merge: taught or left out, in the mix or not, for training or for validation.

It is decided without holding the items: signatures first, then the few alike.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from sys import intern

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.dataset.decisions import Fate, Reason, Stand, settle_duplicates
from tasks.dataset.general_mix import MixRow
from tasks.dataset.settings import EmitSettings
from tasks.dataset.sources import Sources
from tasks.items.duplicates import find_near_pairs, find_shown_images, group_linked, make_comparable_item
from tasks.items.image_hashes import ImageHashes
from tasks.items.signatures import compute_signatures
from tasks.records import Sample

_DETAILS = {
    Reason.CONTAMINATES: "is, or is nearly, evaluation item {other}",
    Reason.DUPLICATE: "same content as {other}",
    Reason.OVERRULED: "the label of {other}, equal or nearly so, has the stronger origin",
    Reason.CONFLICTING: "items equal or nearly so, such as {other}, have labels {labels}",
}


@dataclass(frozen=True)
class Plan:
    """What becomes of every item, by its place: labelled first, then pool, then mix; evaluation items stand last."""

    ids: list[str]
    fates: list[Fate]
    """Of all but evaluation items."""
    validation: NDArray[np.bool_]
    """Of the same: it is held out for validation."""
    contaminating: int
    """Items of, or near, the evaluation split, whether they are left out or not."""
    own: int
    """Labelled and pool items."""
    mixed: int
    """Rows of the mix that were needed, good or not; those after them are neither kept nor dropped."""

    def detail(self, place: int) -> str:
        """Return why the item at `place` is left out, for people; empty where its reason code says it all."""
        fate = self.fates[place]
        if fate.other is None:
            return "shows a picture of the evaluation split" if fate.reason is Reason.CONTAMINATES else ""
        text = _DETAILS.get(fate.reason, "nearly the same as {other}") if fate.reason else ""
        return text.format(other=self.ids[fate.other], labels=list(fate.labels))


def plan_merge(sources: Sources, image_hashes: ImageHashes, seed: int) -> Plan:
    """Decide about every item of `sources`. `image_hashes` holds the hashes of images, and learns those it lacks.

    Measured (tests/benchmarks/merge_scale.py) on a million items, hashes known: 184 s of one core, 2.2 GiB.
    """
    settings = sources.settings
    ids: list[str] = []
    stands: list[Stand] = []
    signatures = compute_signatures(_noted(sources, ids, stands), image_hashes)
    pairs = find_near_pairs(
        signatures, len(stands), lambda places: {i: make_comparable_item(s) for i, s in sources.at(places)}
    )
    contents: list[int] = np.unique(signatures.content, return_inverse=True)[1].tolist()
    stands = [stand._replace(content=content) for stand, content in zip(stands, contents, strict=False)]
    near, forbidden = _neighbours(contents, pairs, len(stands))
    forbidden |= _pictured(sources, contents, image_hashes)
    competing = near if settings.near_duplicates == "drop" else {}
    decided = settle_duplicates(stands, competing, {} if settings.transductive else forbidden)
    own = sources.own
    mixed = _needed(sources.mix, decided[own:], _wanted(decided[:own], settings))
    return Plan(
        ids=ids,
        fates=decided,
        validation=_validation(stands, decided, own, contents, pairs, settings.validation_share, seed),
        contaminating=sum(stand.content in forbidden for stand in stands[:own]),
        own=own,
        mixed=mixed,
    )


def _noted(sources: Sources, ids: list[str], stands: list[Stand]) -> Iterator[Sample]:
    """All items in order of place; ids, and how they stand, are added to the lists on the way."""
    labelled = len(sources.labelled)
    for i, (sample, decision) in enumerate(sources.decided()):
        ids.append(sample.id)
        task = intern(sample.task)  # a million rows would bring as many copies
        stands.append(
            Stand(0, decision.label, decision.origin, decision.refused, i < labelled, not sample.labels, task)
        )
        yield sample
    for sample in sources.evaluation:
        ids.append(sample.id)
        yield sample


def _neighbours(
    contents: Sequence[int], pairs: Iterable[tuple[int, int]], count: int
) -> tuple[dict[int, list[int]], dict[int, int | None]]:
    """(contents near each content, both ways; contents of or near an evaluation item → that item)."""
    forbidden: dict[int, int | None] = {content: place for place, content in enumerate(contents) if place >= count}
    near: dict[int, list[int]] = {}
    for a, b in pairs:
        if b >= count:
            forbidden.setdefault(contents[a], b)
        elif contents[a] != contents[b]:
            near.setdefault(contents[a], []).append(contents[b])
            near.setdefault(contents[b], []).append(contents[a])
    return near, forbidden


def _pictured(sources: Sources, contents: Sequence[int], image_hashes: ImageHashes) -> dict[int, int | None]:
    """Contents of the mix that show a picture of the evaluation split, whatever is asked about it."""
    rows = [row.example for row in sources.mix if row.example is not None]
    images = [image for row in rows for image in row.images]
    if not images or not sources.evaluation:
        return {}
    shown = find_shown_images(images, [image for sample in sources.evaluation for image in sample.images], image_hashes)
    return {contents[sources.own + i]: None for i, row in enumerate(rows) if any(x.sha256 in shown for x in row.images)}


def _wanted(decided: Sequence[Fate], settings: EmitSettings) -> int:
    """Return how many rows of the mix make its share of the whole set."""
    if settings.mix is None:
        return 0
    kept = sum(fate.reason is None for fate in decided)
    return round(kept * settings.mix.share / (1 - settings.mix.share))


def _needed(mix: Sequence[MixRow], decided: Sequence[Fate], wanted: int) -> int:
    """How many rows of the mix must be gone through for `wanted` good ones."""
    good = iter(decided)
    taken = 0
    for i, row in enumerate(mix):
        if taken == wanted:
            return i
        taken += row.example is not None and next(good).reason is None
    return len(mix)


def _validation(
    stands: Sequence[Stand],
    decided: Sequence[Fate],
    own: int,
    contents: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    share: float,
    seed: int,
) -> NDArray[np.bool_]:
    """[N] True for items held out: of each label a share, items equal or nearly so on one side."""
    held = np.zeros(len(stands), bool)
    kept = np.array([place for place in range(own) if decided[place].reason is None], dtype=np.int64)
    groups = group_linked(max(contents, default=-1) + 1, [(contents[a], contents[b]) for a, b in pairs])
    names = ["" if stands[place].open else stands[place].label or "" for place in map(int, kept)]
    labels: NDArray[np.int64] = pd.factorize(np.array(names, dtype=object))[0]
    group = groups[np.array(contents, dtype=np.int64)[kept]]
    held[kept] = validation_part(labels, group, share, seed)
    return held


def validation_part(labels: NDArray[np.int64], groups: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """[N] True for items held out: of each label (a number an item) about `share` of its groups, whole.

    A group counts as its first item's label. A label with a single group stays in training, and each label keeps at
    least one group there. scikit-learn's StratifiedGroupKFold loops over groups in Python, which takes minutes at a
    million, and its StratifiedShuffleSplit refuses labels with one item; hence this.
    """
    held = np.zeros(len(groups), bool)
    if not len(groups) or share <= 0:
        return held
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    by_label = order[np.argsort(labels[first][order], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[first][by_label], prepend=-1))
    sizes = np.diff(np.append(starts, len(by_label)))
    # each label keeps a group in training
    wanted = np.minimum(apportion(sizes * share), sizes - 1)
    rank = np.arange(len(by_label)) - np.repeat(starts, sizes)
    chosen = np.zeros(len(first), bool)
    chosen[by_label[rank < np.repeat(wanted, sizes)]] = True
    return chosen[group]


def apportion(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return whole numbers that add up to the sum of `shares`: those with the largest remainders are rounded up."""
    counts = np.floor(shares).astype(np.int64)
    more = round(float(shares.sum())) - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:more]] += 1
    return counts
