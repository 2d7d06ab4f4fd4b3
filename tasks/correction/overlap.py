"""Rank pairs of labels by how often they are taken for each other, which shows definitions that overlap."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from tasks.correction.decide import Decisions
from tasks.correction.judgements import Ints

ENOUGH = 0.15
"""The report names pairs whose lower bound is at least this."""
_DOUBT = 0.2
"""Probability that the true share of one direction is below its bound. On the demo, pairs with random labels and 12 to
30 items of each label then have bounds of 0.17 to 0.23, other pairs of at most 0.11 (tests/benchmarks/overlap.py)."""


@dataclass(frozen=True)
class Overlap:
    """How often two labels are taken for each other. Made by `rank_overlaps`; read by the correction report."""

    first: int
    """Index of a label; `second` has a higher one."""
    second: int
    first_as_second: float
    """Mean probability that an item with the label `first` is given `second` by who did not see its label."""
    second_as_first: float
    share: float
    """Mean of the two directions. It is 0.5 for labels that nobody can tell apart, however rare one of them is."""
    least: float
    """Lower bound of `share`: a pair with few items needs more confusion to rank as high."""


def rank_overlaps(given: Ints, opinions: Sequence[NDArray[np.floating]]) -> list[Overlap]:
    """Return all pairs of labels that have items, most overlapping first (by `Overlap.least`).

    `given` [N] has the items' labels. Each of `opinions` [N, C] has the probabilities of students, a teacher or a
    person who did not see these labels; the row of an item without an answer is NaN. The opinions about an item count
    equally, so that a teacher that was only asked about suspicious items does not make their labels look worse.

    The two directions are averaged with equal weight. cleanlab's `find_overlapping_classes` counts items, which favours
    frequent labels, and ranks a labeller's habit (one direction only) as high as definitions that overlap.
    """
    seen_as, judged = average_opinions(opinions)
    seen_as = seen_as[judged]
    classes = seen_as.shape[1]
    mass = np.stack([seen_as[given[judged] == label].sum(axis=0) for label in range(classes)])
    sizes = np.bincount(given[judged], minlength=classes).astype(np.float64)
    share = mass / np.maximum(sizes, 1)[:, None]
    least = np.nan_to_num(beta.ppf(_DOUBT, mass, np.maximum(sizes[:, None] - mass, 0) + 1))
    pairs = [
        Overlap(
            a,
            b,
            float(share[a, b]),
            float(share[b, a]),
            float(share[a, b] + share[b, a]) / 2,
            float(least[a, b] + least[b, a]) / 2,
        )
        for a, b in combinations(np.flatnonzero(sizes).tolist(), 2)
    ]
    return sorted(pairs, key=lambda pair: -pair.least)


def average_opinions(opinions: Sequence[NDArray[np.floating]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the mean opinion [N, C], 0 for items that nobody judged, and flags [N] of those that somebody did."""
    answered = np.stack([~np.isnan(each[:, 0]) for each in opinions])
    count = answered.sum(axis=0)
    total = np.sum([np.nan_to_num(each.astype(np.float64)) for each in opinions], axis=0)
    return total / np.maximum(count, 1)[:, None], count > 0


def collect_opinions(decisions: Decisions) -> list[NDArray[np.floating]]:
    """Return what students, teachers and people said of the items, as `rank_overlaps` takes it."""
    judgements = decisions.judgements
    labels = np.arange(len(judgements.labels))
    people = np.full((len(judgements.ids), len(labels)), np.nan)
    for item, label in decisions.verdicts.items():
        if label >= 0:
            people[item] = labels == label
    return [judgements.students, people, *decisions.teachers]
