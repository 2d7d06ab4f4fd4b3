"""Decide which pseudo-labels to keep: the most probable ones, as many as the target precision allows.

There is no threshold for single items, because the precision of the kept set as a whole must reach the target. The
decision considers how often the teacher was right on labelled items with similar evidence (trust.py), how certain that
is, and the random variation in a set of that size.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from tasks.models.engines.spec import RULE
from tasks.pseudo_labels.evidence import Evidence, is_usable
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.pseudo_labels.trust import ROUNDS, TrustModel, Values
from tasks.records import NEITHER, Dropped, Interval, Outcome, Prediction, Record

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

ASSURANCE = 0.9
"""Required probability that the kept labels reach the target precision."""
_ROUNDING = 1e-9
"""Tolerance for rounding: 3 × 0.95 is less than 2.85 in floating point, but a set exactly at the target must pass."""


class PoolDecision(StrEnum):
    """The decision about a pseudo-label."""

    KEPT = "kept"
    REVIEWED = "reviewed"
    """Kept with the label from a reviewer."""
    NOT_TRUSTED = "not_trusted"
    """With this item, the kept set would not reach the target precision with the required probability."""
    OVER_QUOTA = "over_quota"
    """More confident items have already filled the quota of the item's class."""
    REVIEWER_SAID_NEITHER = "reviewer_said_neither"
    ANSWERED_BY_RULE = "answered_by_rule"
    """The teacher is no model but a scripted rule."""
    NO_ANSWER = "no_answer"


KEEPS = frozenset({PoolDecision.KEPT, PoolDecision.REVIEWED})


class Trusted(Record):
    """The decision about one pool item, and the evidence for its label. Made by `decide`; read by reports."""

    sample_id: str
    label: str | None
    """The label from the teacher or from a reviewer."""
    expected: float | None
    """Expected precision, which is the probability that the label is correct; None without an answer."""
    evidence: Evidence
    decision: PoolDecision
    why: str
    """An explanation for people."""


@dataclass(frozen=True)
class Trust:
    """All decisions, in the order of the predictions, and the precision of the kept items that were not reviewed."""

    items: tuple[Trusted, ...]
    precision: Interval
    """The expected precision, and a 95 % interval for the true precision."""
    calibrated: bool
    """Whether the probabilities were calibrated on labelled items. If not, they are the teacher's own."""
    floors_kept: bool = True
    """Whether the setting `floor` could be met for every class."""

    def summarise(self) -> dict[str, float]:
        """Return the figures for the stage's record."""
        decisions = Counter(i.decision for i in self.items)
        known = [i.expected for i in self.items if i.expected is not None]
        return {
            "expected precision": self.precision.value,
            "lower": self.precision.low,
            "upper": self.precision.high,
            "kept share": decisions[PoolDecision.KEPT] / max(len(self.items), 1),
            "expected precision of all": sum(known) / max(len(known), 1),
            "calibrated": float(self.calibrated),
            "reviewed": float(decisions[PoolDecision.REVIEWED] + decisions[PoolDecision.REVIEWER_SAID_NEITHER]),
        }


@dataclass(frozen=True)
class _Candidates:
    """N usable predictions without a reviewer's verdict."""

    labels: list[str]
    evidence: list[Evidence]
    model: TrustModel | None

    def draw_rounds(self) -> Iterator[Values]:
        """Yield, for each round of the model, the probabilities [N] that the labels are correct."""
        if self.model is None:
            return repeat(self._read_confidence(), ROUNDS)
        return self.model.draw_rounds(self.evidence, self.labels)

    def expect_precision(self) -> Values:
        """Return the expected precision [N] of the labels."""
        return (
            self._read_confidence() if self.model is None else self.model.expect_precision(self.evidence, self.labels)
        )

    def _read_confidence(self) -> Values:
        return np.array([e.confidence or 0.0 for e in self.evidence], dtype=np.float64)


def decide(
    predictions: Sequence[Prediction],
    found: Mapping[str, Evidence],
    model: TrustModel | None,
    settings: PseudoLabelSettings,
    verdicts: Mapping[str, str],
    seed: int = 0,
    *,
    by_rule: bool = False,
) -> Trust:
    """Decide about every prediction. `found` maps the sample ids of usable predictions to their evidence.

    `model` is None if there is no labelled set to fit it to. Then the teacher's mean probability must reach the target,
    and ASSURANCE is ignored. `verdicts` maps sample ids to a label or `neither`, and overrides everything else.
    `by_rule` says that the teacher is a scripted rule, of which no answer is kept.
    """
    open_ = [p for p in predictions if is_usable(p) and p.sample_id not in verdicts and not by_rule]
    ids = [p.sample_id for p in open_]
    candidates = _Candidates([p.label or "" for p in open_], [found[i] for i in ids], model)
    expected = candidates.expect_precision()
    order = np.lexsort((np.array(ids, dtype=str), -expected))
    allowed = _apply_cap(candidates.labels, order, settings)
    kept, floors_kept = _keep_longest(candidates, expected, order[allowed[order]], settings, seed)
    precision = _estimate_precision(candidates, expected, kept, seed)
    chosen = np.zeros(len(open_), dtype=bool)
    chosen[kept] = True
    place = {sample_id: i for i, sample_id in enumerate(ids)}
    items: list[Trusted] = []
    for p in predictions:
        i = place.get(p.sample_id)
        if i is None:
            items.append(_settle(p, verdicts.get(p.sample_id), found.get(p.sample_id, Evidence()), by_rule))
            continue
        decision = (
            PoolDecision.KEPT if chosen[i] else PoolDecision.NOT_TRUSTED if allowed[i] else PoolDecision.OVER_QUOTA
        )
        items.append(Trusted(
            sample_id=p.sample_id, label=p.label, expected=float(expected[i]), evidence=candidates.evidence[i],
            decision=decision,
            why=_explain(decision, float(expected[i]), candidates.labels[i], settings, model is not None),
        ))  # fmt: skip
    return Trust(tuple(items), precision, model is not None, floors_kept)


def split(trust: Trust, predictions: Sequence[Prediction], stage: str) -> tuple[list[Prediction], list[Dropped]]:
    """Return the predictions to keep, and records of the dropped ones for `stage`.

    If a reviewer gave the label, the source of the prediction becomes `review`.
    """
    kept: list[Prediction] = []
    dropped: list[Dropped] = []
    for item, p in zip(trust.items, predictions, strict=True):
        if item.decision is PoolDecision.REVIEWED:
            update: dict[str, object] = {
                "outcome": Outcome.OK,
                "label": item.label,
                "source": "review",
                "probabilities": {},
                "votes": {},
                "reason": p.reason if p.label == item.label else "",
            }
            kept.append(p.model_copy(update=update))
        elif item.decision in KEEPS:
            kept.append(p)
        else:
            reason = p.outcome if item.decision is PoolDecision.NO_ANSWER else item.decision
            dropped.append(Dropped(sample_id=p.sample_id, stage=stage, reason=reason, detail=item.why))
    return kept, dropped


def list_untrusted(trust: Trust) -> dict[str, float]:
    """Map the sample ids of untrusted items to their expected precision. Further teachers are asked about them."""
    return {i.sample_id: i.expected or 0.0 for i in trust.items if i.decision is PoolDecision.NOT_TRUSTED}


def list_calibration_items(
    trust: Trust, model: TrustModel | None, predictions: Mapping[str, Prediction], found: Mapping[str, Evidence]
) -> list[str]:
    """Return the ids of the labelled items on which a further teacher is calibrated.

    Their expected precision is not higher than that of the most certain untrusted item of the pool.
    """
    untrusted = list_untrusted(trust)
    if model is None or not untrusted:
        return []
    expected = model.expect_precision(list(found.values()), [predictions[i].label or "" for i in found])
    return [i for i, p in zip(found, expected.tolist(), strict=True) if p <= max(untrusted.values())]


def _apply_cap(labels: Sequence[str], order: Ints, settings: PseudoLabelSettings) -> Flags:
    """Flag [N] the most confident items of each class, as many as `cap` allows.

    `order` [N] has the indices of the items in `labels`, most confident first.
    """
    cap, sizes = settings.cap, Counter(labels)
    remaining = {label: cap if isinstance(cap, int) else (cap or {}).get(label, size) for label, size in sizes.items()}
    allowed = np.zeros(len(labels), dtype=bool)
    for i in map(int, order):
        allowed[i] = remaining[labels[i]] > 0
        remaining[labels[i]] -= 1
    return allowed


def _put_floors_first(labels: Sequence[str], order: Ints, floor: int) -> tuple[Ints, Ints]:
    """Split `order` into the first `floor` items of each class and the rest, both in their original order."""
    taken: Counter[str] = Counter()
    first = np.zeros(len(order), dtype=bool)
    for place, i in enumerate(map(int, order)):
        first[place] = taken[labels[i]] < floor
        taken[labels[i]] += 1
    return order[first], order[~first]


def _keep_longest(
    candidates: _Candidates, expected: Values, order: Ints, settings: PseudoLabelSettings, seed: int
) -> tuple[Ints, bool]:
    """Move floors to the front of `order`; return its longest prefix that reaches the target, and if floors fit."""
    floors, rest = _put_floors_first(candidates.labels, order, settings.floor)
    for first, after in ((floors, rest), (order[:0], order)):
        wanted = np.concatenate([first, after])
        size = _count_reaching(candidates, expected, wanted, settings, seed)
        if size >= max(len(first), 1):
            return wanted[:size], len(first) == len(floors)
    return order[:0], not len(floors)


def _count_reaching(
    candidates: _Candidates, expected: Values, order: Ints, settings: PseudoLabelSettings, seed: int
) -> int:
    """Return the length of the longest prefix of `order` that reaches the target; 0 if none does.

    The target must be reached with a probability of ASSURANCE, because a set whose expected precision is just the
    target misses it half of the time.
    """
    least = settings.target_precision * np.arange(1, len(order) + 1) - _ROUNDING
    if candidates.model is None:
        good = np.cumsum(expected[order]) >= least
    else:
        rng = np.random.default_rng([seed, 3])
        reached = np.zeros(len(order))
        for p in candidates.draw_rounds():
            reached += np.cumsum(rng.random(len(order)) < p[order]) >= least
        good = reached >= ASSURANCE * len(candidates.model.slopes) - _ROUNDING
    found = np.flatnonzero(good)
    return int(found[-1]) + 1 if len(found) else 0


def _estimate_precision(candidates: _Candidates, expected: Values, kept: Ints, seed: int) -> Interval:
    """Return the expected precision of the items `kept`, with the bounds that contain 95 % of the rounds.

    Each round draws one probability per item and one outcome from it, so the bounds include both the uncertainty of the
    calibration and the random variation in a set of that size.
    """
    if not len(kept):
        return Interval(value=0.0, low=0.0, high=1.0)
    rng = np.random.default_rng([seed, 2])
    shares = [float((rng.random(len(kept)) < p[kept]).mean()) for p in candidates.draw_rounds()]
    low, high = np.quantile(shares, [0.025, 0.975])
    return Interval(value=float(expected[kept].mean()), low=float(low), high=float(high))


def _settle(prediction: Prediction, verdict: str | None, evidence: Evidence, by_rule: bool) -> Trusted:
    """Return the decision about an item that has a verdict or no usable answer, or an answer of a rule."""
    teacher = "scripted rule" if by_rule else "teacher"
    if verdict is None and by_rule and is_usable(prediction):
        decision, label, expected = PoolDecision.ANSWERED_BY_RULE, prediction.label, None
        why = f"the teacher is {RULE}"
    elif verdict is None:
        decision, label, expected = PoolDecision.NO_ANSWER, None, None
        why = prediction.detail or "no usable answer"
    elif verdict == NEITHER:
        decision, label, expected = PoolDecision.REVIEWER_SAID_NEITHER, None, 0.0
        why = "reviewer: no label is right"
    else:
        decision, label, expected = PoolDecision.REVIEWED, verdict, 1.0
        why = f"reviewer says {verdict}; {teacher} {prediction.label or 'gave no answer'}"
    return Trusted(
        sample_id=prediction.sample_id, label=label, expected=expected, evidence=evidence, decision=decision, why=why
    )


def _explain(decision: PoolDecision, p: float, label: str, settings: PseudoLabelSettings, calibrated: bool) -> str:
    odds = f"P(right)={p:.3f}" if calibrated else f"p={p:.3f} by the teacher's own word"
    if decision is PoolDecision.KEPT:
        return odds
    if decision is PoolDecision.OVER_QUOTA:
        return f"{odds}; {label} has as many as its quota allows, all of them surer"
    target = settings.target_precision
    if not calibrated:
        return f"{odds}; with it the kept set's expected precision falls below {target}"
    return f"{odds}; with it the kept set reaches {target} less surely than {ASSURANCE:.0%}"
