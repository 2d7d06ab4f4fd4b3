"""Plan a merge: decide whether each item is kept, and whether it is used for training or validation.

The items are never all in memory: first their signatures are compared, then only the few similar items are read.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.dataset.decisions import ItemOutcome, LeftOutReason, MergeEntry, settle_duplicates
from tasks.dataset.general_mix import MixRow
from tasks.dataset.settings import EmitSettings
from tasks.dataset.sources import Sources
from tasks.items.duplicates import (
    Item,
    find_near_pairs,
    find_shown_images,
    group_linked,
    is_same_question,
    make_comparable_item,
)
from tasks.items.image_hashes import ImageHashes
from tasks.items.key_frames import list_pictures
from tasks.items.signatures import compute_signatures
from tasks.records import Sample

_DETAILS = {
    LeftOutReason.CONTAMINATES: "is, or is nearly, evaluation item {other}",
    LeftOutReason.DUPLICATE: "same content as {other}",
    LeftOutReason.OVERRULED: "the label of {other}, equal or nearly so, has the stronger origin",
    LeftOutReason.CONFLICTING: "items with the same content, such as {other}, have labels {labels}",
}


@dataclass(frozen=True)
class Plan:
    """The decision about every item.

    An item's place is its index in this order: labelled items, pool items, usable mix items, evaluation items.
    """

    ids: list[str]
    manifests: list[str]
    """Absolute path of each item's manifest file. An id alone may stand for a labelled and a pool item."""
    outcomes: list[ItemOutcome]
    """One outcome per item, without the evaluation items."""
    validation: NDArray[np.bool_]
    """Whether each item of `outcomes` is held out for validation."""
    contaminating: int
    """Number of labelled and pool items that equal or nearly equal an evaluation item, even if they are kept."""
    own: int
    """Number of labelled and pool items."""
    mixed: int
    """How many rows of the mix were needed, usable or not. Later rows are neither kept nor dropped."""
    mix_wanted: int = 0
    """How many examples of the mix make up its share."""

    def detail(self, place: int) -> str:
        """Explain to people why the item at `place` is left out; empty if the reason code says enough."""
        outcome = self.outcomes[place]
        if outcome.other is None:
            return "shows a picture of the evaluation split" if outcome.reason is LeftOutReason.CONTAMINATES else ""
        text = _DETAILS.get(outcome.reason, "nearly the same as {other}") if outcome.reason else ""
        other, manifest = self.ids[outcome.other], self.manifests[outcome.other]
        if other == self.ids[place] and manifest != self.manifests[place]:
            other = f"{other} of {Path(manifest).name}"
        return text.format(other=other, labels=list(outcome.labels))


def plan_merge(sources: Sources, image_hashes: ImageHashes, seed: int) -> Plan:
    """Decide about every item of `sources`. Computes missing image hashes and adds them to `image_hashes`.

    A million items with known hashes take 184 s of one core and 2.2 GiB of memory (tests/benchmarks/merge_scale.py).
    """
    settings = sources.settings
    ids: list[str] = []
    manifests: list[str] = []
    entries: list[MergeEntry] = []
    signatures = compute_signatures(_collect_items(sources, ids, manifests, entries), image_hashes)
    items: dict[int, Item] = {}

    def fetch(places: Collection[int]) -> Mapping[int, Item]:
        found = {i: make_comparable_item(s) for i, s in sources.read_places(places)}
        items.update(found)
        return found

    pairs = find_near_pairs(signatures, len(entries), fetch)
    same = [(a, b) for a, b in pairs if b < len(entries) and is_same_question(items[a], items[b])]
    contents: list[int] = np.unique(signatures.content, return_inverse=True)[1].tolist()
    entries = [entry._replace(content=content) for entry, content in zip(entries, contents, strict=False)]
    near = _find_neighbours(contents, same)
    forbidden = _find_forbidden(contents, pairs, len(entries))
    forbidden |= _find_shown_pictures(sources, contents, image_hashes)
    competing = near if settings.near_duplicates == "drop" else {}
    decided = settle_duplicates(entries, competing, {} if settings.transductive else forbidden)
    own = sources.own
    wanted = _count_wanted(decided[:own], settings)
    mixed = _count_needed(sources.mix, decided[own:], wanted)
    return Plan(
        ids=ids,
        manifests=manifests,
        outcomes=decided,
        validation=_choose_validation(entries, decided, own, contents, pairs, settings.validation_share, seed),
        contaminating=sum(entry.content in forbidden for entry in entries[:own]),
        own=own,
        mixed=mixed,
        mix_wanted=wanted,
    )


def _collect_items(
    sources: Sources, ids: list[str], manifests: list[str], entries: list[MergeEntry]
) -> Iterator[Sample]:
    """Yield all items in order of place, and append each one's id, manifest and `MergeEntry` to the lists."""
    labelled = len(sources.labelled)
    for i, (sample, decision) in enumerate(sources.decide_all()):
        ids.append(sample.id)
        manifests.append(intern(sample.source))  # else a million rows would hold a million copies
        task = intern(sample.task)
        entries.append(
            MergeEntry(0, decision.label, decision.origin, decision.refused, i < labelled, not sample.labels, task)
        )
        yield sample
    for sample in sources.evaluation:
        ids.append(sample.id)
        manifests.append(intern(sample.source))
        yield sample


def _find_neighbours(contents: Sequence[int], pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Map each content to the contents near it, in both directions."""
    near: dict[int, list[int]] = {}
    for a, b in pairs:
        if contents[a] != contents[b]:
            near.setdefault(contents[a], []).append(contents[b])
            near.setdefault(contents[b], []).append(contents[a])
    return near


def _find_forbidden(contents: Sequence[int], pairs: Iterable[tuple[int, int]], count: int) -> dict[int, int | None]:
    """Map each content that equals or nearly equals an evaluation item to the place of that item."""
    forbidden: dict[int, int | None] = {content: place for place, content in enumerate(contents) if place >= count}
    for a, b in pairs:
        if b >= count:
            forbidden.setdefault(contents[a], b)
    return forbidden


def _find_shown_pictures(sources: Sources, contents: Sequence[int], image_hashes: ImageHashes) -> dict[int, int | None]:
    """Return the contents of the mix that show a picture of the evaluation split, whatever they ask about it."""
    rows = [row.example for row in sources.mix if row.example is not None]
    images = [image for row in rows for image in row.images]
    if not images or not sources.evaluation:
        return {}
    held_out = [picture for sample in sources.evaluation for picture in list_pictures(sample)]
    shown = find_shown_images(images, held_out, image_hashes)
    return {contents[sources.own + i]: None for i, row in enumerate(rows) if any(x.sha256 in shown for x in row.images)}


def _count_wanted(decided: Sequence[ItemOutcome], settings: EmitSettings) -> int:
    """Return how many examples of the mix make up its share of the whole set."""
    if settings.mix is None:
        return 0
    kept = sum(outcome.reason is None for outcome in decided)
    return round(kept * settings.mix.share / (1 - settings.mix.share))


def _count_needed(mix: Sequence[MixRow], decided: Sequence[ItemOutcome], wanted: int) -> int:
    """Return how many rows of the mix are needed for `wanted` usable ones."""
    good = iter(decided)
    taken = 0
    for i, row in enumerate(mix):
        if taken == wanted:
            return i
        taken += row.example is not None and next(good).reason is None
    return len(mix)


def _choose_validation(
    entries: Sequence[MergeEntry],
    decided: Sequence[ItemOutcome],
    own: int,
    contents: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    share: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Return flags [N] for the items held out: a share of each label, without separating near-duplicates."""
    held = np.zeros(len(entries), bool)
    kept = np.array([place for place in range(own) if decided[place].reason is None], dtype=np.int64)
    groups = group_linked(max(contents, default=-1) + 1, [(contents[a], contents[b]) for a, b in pairs])
    names = ["" if entries[place].open else entries[place].label or "" for place in map(int, kept)]
    labels: NDArray[np.int64] = pd.factorize(np.array(names, dtype=object))[0]
    group = groups[np.array(contents, dtype=np.int64)[kept]]
    held[kept] = hold_out_groups(labels, group, share, seed)
    return held


def hold_out_groups(labels: NDArray[np.int64], groups: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return flags [N] that say which items are held out: about `share` of each label's groups, always whole groups.

    `labels` [N] and `groups` [N] contain a number for each item. A group counts under the label of its first item. At
    least one group of each label stays in training. scikit-learn is not used, because StratifiedGroupKFold takes
    minutes for a million groups, and StratifiedShuffleSplit refuses labels with one item.
    """
    held = np.zeros(len(groups), bool)
    if not len(groups) or share <= 0:
        return held
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    by_label = order[np.argsort(labels[first][order], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[first][by_label], prepend=-1))
    sizes = np.diff(np.append(starts, len(by_label)))
    # each label keeps one group in training
    wanted = np.minimum(apportion(sizes * share), sizes - 1)
    rank = np.arange(len(by_label)) - np.repeat(starts, sizes)
    chosen = np.zeros(len(first), bool)
    chosen[by_label[rank < np.repeat(wanted, sizes)]] = True
    return chosen[group]


def apportion(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round `shares` to whole numbers that keep their (rounded) sum: the largest remainders are rounded up."""
    counts = np.floor(shares).astype(np.int64)
    more = round(float(shares.sum())) - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:more]] += 1
    return counts
