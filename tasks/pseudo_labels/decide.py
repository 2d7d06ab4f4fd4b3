"""Which pseudo-labels to keep: the likeliest to be right, for as long as the kept set reaches the target precision.

No threshold an item. What is kept depends on the whole set: on how the teacher did on labelled items with like evidence
(tasks/pseudo_labels/trust.py), on how sure that is, and on what the set's size leaves to chance.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from tasks.pseudo_labels.evidence import Evidence, confidence, is_usable
from tasks.pseudo_labels.quotas import Balance, allowed, floors_first
from tasks.pseudo_labels.trust import ROUNDS, TrustModel, Values
from tasks.records import NEITHER, Dropped, Outcome, Prediction, Record

Ints = NDArray[np.int64]

_ROUNDING = 1e-9
"""Three times .95 add up to less than 2.85 in floating point: a set exactly at the target must not be cut for that."""


class PoolDecision(StrEnum):
    """What became of a pseudo-label."""

    KEPT = "kept"
    REVIEWED = "reviewed"
    """Kept with the label that a person gave."""
    NOT_TRUSTED = "not_trusted"
    """With it, the kept set would not surely enough reach the target."""
    OVER_QUOTA = "over_quota"
    """Its class has enough that are surer."""
    REVIEWER_SAID_NEITHER = "reviewer_said_neither"
    NO_ANSWER = "no_answer"


KEEPS = frozenset({PoolDecision.KEPT, PoolDecision.REVIEWED})


class Trusted(Record):
    """Whether a pseudo-label is trusted, and on what evidence. Made here, one a pool item; read by reports."""

    sample_id: str
    label: str | None
    """The teacher's, or a person's."""
    expected: float | None
    """Expected precision: probability that the label is right; None without an answer."""
    evidence: Evidence
    decision: PoolDecision
    why: str
    """One sentence for people."""


@dataclass(frozen=True)
class Bar:
    """What the kept set must reach."""

    target: float
    """Share of right labels."""
    assurance: float
    """Probability that the set reaches it; an expected precision at the target alone would be missed half the time."""


@dataclass(frozen=True)
class Estimate:
    """The precision of a set of labels that nobody has checked: expected, and a 95 % interval of what is true."""

    expected: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Trust:
    """The decisions, in the order of the predictions, and the kept set's precision (without reviewed items)."""

    items: tuple[Trusted, ...]
    precision: Estimate
    calibrated: bool
    """Whether labelled items stand behind the figures; else they are the teacher's own word."""
    floors_kept: bool = True


def decide(
    predictions: Sequence[Prediction],
    found: Mapping[str, Evidence],
    belief: TrustModel | None,
    bar: Bar,
    balance: Balance,
    verdicts: Mapping[str, str],
    seed: int = 0,
) -> Trust:
    """Decide about every prediction; `found` holds the evidence of the usable ones by sample id.

    Without a `belief` (no labelled set) the teacher's own probability is all there is: then the set's mean probability
    must reach the target, whatever `assurance` says. Verdicts (sample id → label or `neither`) stand.
    """
    open_ = [p for p in predictions if is_usable(p) and p.sample_id not in verdicts]
    labels = [p.label or "" for p in open_]
    evidence = [found[p.sample_id] for p in open_]

    def rounds() -> Iterator[Values]:
        if belief is not None:
            yield from belief.rounds(evidence, labels)
        else:
            own = np.array([confidence(p) for p in open_], dtype=np.float64)
            yield from (own for _ in range(ROUNDS))

    expected = np.zeros(len(open_))
    for p in rounds():
        expected += p / ROUNDS if belief is None else p / len(belief.slopes)
    order = np.lexsort((np.array([p.sample_id for p in open_], dtype=str), -expected))
    fits = allowed(labels, order, balance)
    kept, floors_kept = _longest(rounds, expected, labels, order[fits[order]], bar, balance, belief, seed)
    precision = estimate(rounds, expected, kept, seed)
    place = {p.sample_id: i for i, p in enumerate(open_)}
    chosen = np.zeros(len(open_), dtype=bool)
    chosen[kept] = True
    items: list[Trusted] = []
    for p in predictions:
        if p.sample_id in place:
            i = place[p.sample_id]
            decision = (
                PoolDecision.KEPT if chosen[i] else PoolDecision.NOT_TRUSTED if fits[i] else PoolDecision.OVER_QUOTA
            )
            why = _why(decision, float(expected[i]), labels[i], bar, belief is not None)
            items.append(Trusted(
                sample_id=p.sample_id, label=p.label, expected=float(expected[i]), evidence=evidence[i],
                decision=decision, why=why,
            ))  # fmt: skip
        else:
            items.append(_settled(p, verdicts.get(p.sample_id), found.get(p.sample_id, Evidence())))
    return Trust(tuple(items), precision, belief is not None, floors_kept)


def estimate(rounds: Callable[[], Iterator[Values]], expected: Values, kept: Ints, seed: int) -> Estimate:
    """The precision of the items `kept`: what all rounds expect, and between which bounds 95 % of them end.

    A round is one belief about each item and one outcome drawn from it, so the bounds hold what calibration leaves open
    and what chance does in a set of that size.
    """
    if not len(kept):
        return Estimate(0.0, 0.0, 1.0)
    rng = np.random.default_rng([seed, 2])
    shares = [float((rng.random(len(kept)) < p[kept]).mean()) for p in rounds()]
    low, high = np.quantile(shares, [0.025, 0.975])
    return Estimate(float(expected[kept].mean()), float(low), float(high))


def split(trust: Trust, predictions: Sequence[Prediction], stage: str) -> tuple[list[Prediction], list[Dropped]]:
    """Predictions to keep, those with a person's label as `source` `review`, and the rest with its reason."""
    kept: list[Prediction] = []
    dropped: list[Dropped] = []
    for item, p in zip(trust.items, predictions, strict=True):
        if item.decision is PoolDecision.REVIEWED:
            reason = p.reason if p.label == item.label else ""
            update: dict[str, object] = {
                "outcome": Outcome.OK,
                "label": item.label,
                "source": "review",
                "probabilities": {},
                "votes": {},
                "reason": reason,
            }
            kept.append(p.model_copy(update=update))
        elif item.decision in KEEPS:
            kept.append(p)
        else:
            reason = p.outcome if item.decision is PoolDecision.NO_ANSWER else item.decision
            dropped.append(Dropped(sample_id=p.sample_id, stage=stage, reason=reason, detail=item.why))
    return kept, dropped


def _longest(
    rounds: Callable[[], Iterator[Values]],
    expected: Values,
    labels: Sequence[str],
    order: Ints,
    bar: Bar,
    balance: Balance,
    belief: TrustModel | None,
    seed: int,
) -> tuple[Ints, bool]:
    """The longest beginning of `order` that reaches the bar, floors first; and whether floors could be kept."""
    floors, rest = floors_first(labels, order, balance.floor)
    for first, after in ((floors, rest), (order[:0], order)):
        wanted = np.concatenate([first, after])
        size = _reach(rounds, expected, wanted, bar, belief, seed)
        if size >= max(len(first), 1):
            return wanted[:size], len(first) == len(floors)
    return order[:0], not len(floors)


def _reach(
    rounds: Callable[[], Iterator[Values]],
    expected: Values,
    order: Ints,
    bar: Bar,
    belief: TrustModel | None,
    seed: int,
) -> int:
    """Length of the longest beginning of `order` that reaches the bar; 0 where none does."""
    counts = np.arange(1, len(order) + 1)
    if belief is None:
        good = np.cumsum(expected[order]) >= bar.target * counts - _ROUNDING
    else:
        rng = np.random.default_rng([seed, 3])
        reached = np.zeros(len(order))
        for p in rounds():
            right = rng.random(len(order)) < p[order]
            reached += np.cumsum(right) >= bar.target * counts - _ROUNDING
        good = reached >= bar.assurance * len(belief.slopes) - _ROUNDING
    found = np.flatnonzero(good)
    return int(found[-1]) + 1 if len(found) else 0


def _settled(prediction: Prediction, verdict: str | None, evidence: Evidence) -> Trusted:
    """An item that a person has judged, or that has no usable answer."""
    if verdict is None:
        decision, label, expected, why = PoolDecision.NO_ANSWER, None, None, prediction.detail or "no usable answer"
    elif verdict == NEITHER:
        decision, label, expected, why = PoolDecision.REVIEWER_SAID_NEITHER, None, 0.0, "reviewer: no label is right"
    else:
        decision, label, expected = PoolDecision.REVIEWED, verdict, 1.0
        why = f"reviewer says {verdict}; teacher {prediction.label or 'gave no answer'}"
    return Trusted(
        sample_id=prediction.sample_id, label=label, expected=expected, evidence=evidence, decision=decision, why=why
    )


def _why(decision: PoolDecision, p: float, label: str, bar: Bar, calibrated: bool) -> str:
    odds = f"P(right)={p:.3f}" if calibrated else f"p={p:.3f} by the teacher's own word"
    if decision is PoolDecision.KEPT:
        return odds
    if decision is PoolDecision.OVER_QUOTA:
        return f"{odds}; {label} has as many as its quota allows, all of them surer"
    if not calibrated:
        return f"{odds}; with it the kept set's expected precision falls below {bar.target}"
    return f"{odds}; with it the kept set reaches {bar.target} less surely than {bar.assurance:.0%}"
