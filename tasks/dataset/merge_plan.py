"""What becomes of every item of a merge, decided without holding the items: signatures first, then the few alike."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.dataset.decisions import Decision, Fate, Reason, Stand, fates, labelled_decision, pool_decision
from tasks.dataset.mixing import MixRow, as_sample
from tasks.dataset.splitting import validation_part
from tasks.items.duplicates import group_linked
from tasks.items.image_hashes import Looks
from tasks.items.near_duplicates import item_of, near_pairs, shown_pictures
from tasks.items.signatures import sign
from tasks.records import Correction, Origin, Sample, content_digest
from tasks.review.verdicts import Verdict, usable
from tasks.storage.rows import StoredRows

Samples = Sequence[Sample] | StoredRows[Sample]
"""Samples that can be gone through more than once."""


@dataclass(frozen=True)
class Sources:
    """What is merged. `corrections` and `reasons` (of the *given* label) go by labelled id, `pseudo` by pool id."""

    labelled: Samples = ()
    pool: Samples = ()
    mix: Sequence[MixRow] = ()
    """In the order in which they are taken."""
    evaluation: Samples = ()
    """The held-out items: none of them, nor what is nearly one, is taught."""
    corrections: Mapping[str, Correction] = field(default_factory=dict[str, Correction])
    pseudo: Mapping[str, Decision] = field(default_factory=dict[str, Decision])
    """By trusted pseudo-labels."""
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    unreasoned: Collection[str] = ()
    """Labelled items that are left out where they would be taught their given label: nobody gave a good reason for it.
    Another label, or one that a person confirmed, needs none."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict[str, Verdict])
    """What people said about items in conflict, by id; `verdict` says which of them hold."""

    def decided(self, waiting: Literal["keep", "drop"]) -> Iterator[tuple[Sample, Decision]]:
        """Every item with the decision it would get by itself: labelled, pool, mix."""
        for sample in self.labelled:
            yield sample, self.of_labelled(sample, waiting)
        for sample in self.pool:
            yield sample, self.of_pool(sample)
        for row in self.mix:
            if row.example is not None:
                yield as_sample(row.example), Decision("", Origin.MIX, row.example.why)

    def of_labelled(self, sample: Sample, waiting: Literal["keep", "drop"]) -> Decision:
        """What a labelled item would be taught with, by itself."""
        reason, verdict = self.reasons.get(sample.id, ""), self.verdict(sample)
        decision = labelled_decision(sample, self.corrections.get(sample.id), reason, verdict=verdict, waiting=waiting)
        as_given = decision.origin is Origin.GIVEN and decision.label == sample.given and decision.refused is None
        if sample.id in self.unreasoned and as_given and not decision.reason:
            return decision._replace(refused=Reason.UNREASONED)
        return decision

    def of_pool(self, sample: Sample) -> Decision:
        """What a pool item would be taught with, by itself."""
        return pool_decision(self.pseudo.get(sample.id), self.verdict(sample))

    def verdict(self, sample: Sample) -> str | None:
        """What a person said about the item: a label, or `neither`; None where nobody did, or it no longer holds."""
        said = self.verdicts.get(sample.id)
        if said is None:
            return None
        held, _ = usable({sample.id: said}, {sample.id: sample.labels}, {sample.id: content_digest(sample)})
        return held.get(sample.id)

    def at(self, places: Collection[int]) -> Iterator[tuple[int, Sample]]:
        """(place, sample) of items, evaluation last; only what holds a wanted place is read."""
        start = 0
        mix = [as_sample(row.example) for row in self.mix if row.example is not None]
        for samples in (self.labelled, self.pool, mix, self.evaluation):
            wanted = {place - start for place in places if start <= place < start + len(samples)}
            if isinstance(samples, StoredRows):
                yield from ((start + i, sample) for i, sample in (samples.at(wanted) if wanted else ()))
            else:
                yield from ((start + i, samples[i]) for i in sorted(wanted))
            start += len(samples)


@dataclass(frozen=True)
class Rules:
    """How it is merged."""

    waiting: Literal["keep", "drop"] = "keep"
    """Items that wait for review: taught with the given label, or left out."""
    transductive: bool = False
    """What is in the evaluation split may be taught."""
    near_duplicates: Literal["keep", "drop"] = "drop"
    """Of nearly equal items of the training set: all are taught, or one."""
    mix_share: float = 0.0
    """Of the whole training set."""
    validation_share: float = 0.0
    """Of the examples that have labels."""
    seed: int = 0


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


def plan_merge(sources: Sources, rules: Rules, looks: Looks) -> Plan:
    """Decide about every item of `sources`. `looks` holds the hashes of images, and learns those it lacks.

    Measured (tests/benchmarks/merge_scale.py) on a million items, hashes known: 184 s of one core, 2.2 GiB.
    """
    ids: list[str] = []
    stands: list[Stand] = []
    signatures = sign(_noted(sources, rules, ids, stands), looks)
    pairs = near_pairs(signatures, len(stands), lambda places: {i: item_of(s) for i, s in sources.at(places)})
    contents: list[int] = np.unique(signatures.content, return_inverse=True)[1].tolist()
    stands = [stand._replace(content=content) for stand, content in zip(stands, contents, strict=False)]
    near, forbidden = _neighbours(contents, pairs, len(stands))
    forbidden |= _pictured(sources, contents, looks)
    decided = fates(stands, near if rules.near_duplicates == "drop" else {}, {} if rules.transductive else forbidden)
    own = len(sources.labelled) + len(sources.pool)
    mixed = _needed(sources.mix, decided[own:], _wanted(decided[:own], rules))
    return Plan(
        ids=ids,
        fates=decided,
        validation=_validation(stands, decided, own, contents, pairs, rules),
        contaminating=sum(stand.content in forbidden for stand in stands[:own]),
        own=own,
        mixed=mixed,
    )


def _noted(sources: Sources, rules: Rules, ids: list[str], stands: list[Stand]) -> Iterator[Sample]:
    """All items in order of place; ids, and how they stand, are added to the lists on the way."""
    labelled = len(sources.labelled)
    for i, (sample, decision) in enumerate(sources.decided(rules.waiting)):
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


def _pictured(sources: Sources, contents: Sequence[int], looks: Looks) -> dict[int, int | None]:
    """Contents of the mix that show a picture of the evaluation split, whatever is asked about it."""
    rows = [row.example for row in sources.mix if row.example is not None]
    images = [image for row in rows for image in row.images]
    if not images or not sources.evaluation:
        return {}
    shown = shown_pictures(images, [image for sample in sources.evaluation for image in sample.images], looks)
    first = len(sources.labelled) + len(sources.pool)
    return {contents[first + i]: None for i, row in enumerate(rows) if any(x.sha256 in shown for x in row.images)}


def _wanted(decided: Sequence[Fate], rules: Rules) -> int:
    """Rows of the mix that make its share of the whole set."""
    kept = sum(fate.reason is None for fate in decided)
    return round(kept * rules.mix_share / (1 - rules.mix_share))


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
    rules: Rules,
) -> NDArray[np.bool_]:
    held = np.zeros(len(stands), bool)
    kept = np.array([place for place in range(own) if decided[place].reason is None], dtype=np.int64)
    groups = group_linked(max(contents, default=-1) + 1, [(contents[a], contents[b]) for a, b in pairs])
    numbers: dict[str, int] = {}
    names = ["" if stands[place].open else stands[place].label or "" for place in map(int, kept)]
    labels = [numbers.setdefault(name, len(numbers)) for name in names]
    group = groups[np.array(contents, dtype=np.int64)[kept]]
    held[kept] = validation_part(np.array(labels, dtype=np.int64), group, rules.validation_share, rules.seed)
    return held
