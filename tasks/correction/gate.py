# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (scipy publishes no types)
"""The audit: which items a person is asked about, and whether the verdicts open the gate.

Labels change without a person only while audited evidence says that it helps. On human label noise, applying
every proposal lowered label accuracy on hard data from .9576 to .8314; hence the gate: the Wilson lower bound of
audited wins / (wins + losses) must exceed `level`.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from tasks.correction.calibration import Beliefs, Values, calibrate
from tasks.correction.judgements import Ints, Judgements
from tasks.correction.suspicion import Suspicion

_DISAGREEING = 0.75
"""Of the audited items, the share where the students disagree with the given label."""
_PARTS = 5
"""A verdict is compared with a model that was fitted without it, a fifth of them at a time."""


@dataclass(frozen=True)
class Gate:
    """What the audited changes say about the ones nobody looked at."""

    wins: int
    """Audited items that would be changed, and whose candidate was right."""
    losses: int
    """… and whose given label was right."""
    neither: int
    """… and where both were wrong: neither a win nor a loss."""
    lower: float
    """Wilson lower bound of wins / (wins + losses)."""
    level: float

    @property
    def open(self) -> bool:
        """Whether changes without a verdict may be applied."""
        return self.wins + self.losses > 0 and self.lower > self.level

    @property
    def summary(self) -> str:
        """One clause for people."""
        state = "open" if self.open else "closed"
        return (
            f"gate {state}: {self.wins} audited wins, {self.losses} losses, "
            f"lower bound {self.lower:.2f} against {self.level:.2f}"
        )


def choose_audit(evidence: Suspicion, prior: Beliefs, count: int, seed: int) -> Ints:
    """Return `count` items (or all, if fewer) for a person, drawn by `seed`, three quarters of them disagreements.

    Disagreements are drawn evenly along their log-ratio; agreements by how likely they are wrong all the same, without
    which a quarter of the audit would be spent on labels that nobody doubts. Between them, what one kind cannot fill
    the other does.
    """
    rng = np.random.default_rng(seed)
    disagree = np.flatnonzero(evidence.margin > 0)
    agree = np.flatnonzero(evidence.margin <= 0)
    first = min(len(disagree), max(round(count * _DISAGREEING), count - len(agree)))
    rest = min(count - first, len(agree))
    even = _spread(rng, disagree, evidence.log_ratio, np.ones(len(disagree)), first)
    doubtful = _spread(rng, agree, evidence.log_ratio, prior.p_wrong[agree] + 1e-6, rest)
    return np.concatenate([even, doubtful])


def judge_gate(
    judgements: Judgements,
    evidence: Suspicion,
    verdicts: Mapping[int, int],
    level: float,
    never: Collection[int] = frozenset(),
) -> Gate:
    """Return the gate that `verdicts` (item → label index, -1 for neither) justify.

    Items of `never` are changed by no gate and count neither for nor against it.
    """
    wins = losses = neither = 0
    for held_out, beliefs in cross_fit(judgements, evidence, verdicts):
        for i in held_out:
            if i in never or beliefs.p_candidate[i] <= beliefs.p_given[i]:
                continue
            candidate, given = int(evidence.candidate[i]), int(judgements.given[i])
            wins += verdicts[i] == candidate
            losses += verdicts[i] == given
            neither += verdicts[i] not in (candidate, given)
    return Gate(wins, losses, neither, wilson_interval(wins, wins + losses)[0], level)


def cross_fit(
    judgements: Judgements, evidence: Suspicion, verdicts: Mapping[int, int]
) -> Iterator[tuple[list[int], Beliefs]]:
    """Yield a fifth of the items with a verdict at a time, and beliefs fitted to the verdicts on the other four fifths.

    A model would find its own verdicts in its favour.
    """
    items = sorted(verdicts)
    for part in range(_PARTS):
        others = [i for place, i in enumerate(items) if place % _PARTS != part]
        yield items[part::_PARTS], calibrate(judgements, evidence, verdicts, others).beliefs(evidence)


def expect_gain(beliefs: Beliefs, *, gate_open: bool) -> Values:
    """Return the probability [N] that a person's answer mends the label that an item would otherwise end with."""
    kept = beliefs.p_given
    return 1 - (np.maximum(kept, beliefs.p_candidate) if gate_open else kept)


def choose_by_gain(gain: Values, asked: Collection[int], count: int) -> Ints:
    """Return the `count` items with the highest gain among those not `asked` yet, the highest first."""
    order = np.argsort(-gain, kind="stable")
    return np.array([i for i in order[: count + len(asked)].tolist() if i not in asked][:count], dtype=np.int64)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the bounds of the 95 % Wilson score interval; from 0 to 1 without trials."""
    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _spread(rng: np.random.Generator, items: Ints, by: Values, weights: Values, count: int) -> Ints:
    """Return `count` of `items`: along `by`, cut into stretches of equal weight, one is drawn from each."""
    if count >= len(items):
        return items
    order: Ints = np.argsort(by[items], kind="stable")
    ends: list[float] = np.cumsum(weights[order]).tolist()
    drawn: list[int] = []
    free = np.ones(len(items), dtype=bool)
    points: list[float] = ((np.arange(count) + rng.random(count)) * ends[-1] / count).tolist()
    for point in points:
        place = min(bisect_left(ends, point), len(items) - 1)
        if not free[place]:  # so heavy that it was drawn before: its nearest neighbour that is free
            left = np.flatnonzero(free)
            place = int(left[np.abs(left - place).argmin()])
        free[place] = False
        drawn.append(int(order[place]))
    return items[np.array(drawn, dtype=np.int64)] if drawn else items[:0]
