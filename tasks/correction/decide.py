"""Correction of given labels: suspicion out of fold, a blind teacher, a person's audit, decisions under the gate.

1. No prediction counts whose student saw the item, or a duplicate of it: `students.folds.check_out_of_fold`.
2. `correct` asks the teacher, which is not shown the given label, about the most suspicious items only;
3. has a person judge a sample of them (gate.py), calibrates on the verdicts (calibration.py), and spends
   what is left of the person's budget where an answer is worth most;
4. decides: verdicts stand; unreviewed labels change only while the gate is open (rule 6); the rest waits or stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.correction.calibration import Beliefs, Flags, at_precision, best_expected_f1, calibrate, resampled
from tasks.correction.gate import Gate, choose_audit, choose_by_gain, expected_gain, gate_from
from tasks.correction.judgements import Floats, Ints, Judgements
from tasks.correction.suspicion import Suspicion, suspicion, temper
from tasks.records import Action

AskTeacher = Callable[[Ints], Floats]
"""Items → their probabilities by the teacher, asked blind, [n, C + 1]: the last column is "none of the labels".

NaN in the rows of items that it can't say anything about.
"""
LookUp = Callable[[Ints], Mapping[int, int]]
"""Items → a person's verdicts on those of them that have one: label index, or -1 for neither."""

_ENOUGH = 20
"""Verdicts from which on flags are set by calibrated probability instead of by the plain margin."""
_ROUNDS = 200
"""Bootstrap samples behind an interval."""
_LEAST_DOUBT = -1.5
"""Log-ratio below which no teacher is asked: on human noise (CIFAR-10N) one such item in a hundred was wrong."""


@dataclass(frozen=True)
class Policy:
    """What is asked, and what is believed."""

    reviews: int = 100
    """At most this many items are put before a person."""
    audit: int = 100
    """Of these, the sample for calibration and gate; the rest goes where an answer gains most."""
    teacher_share: float = 0.15
    """At most this share of all items is put before the teacher."""
    gate_level: float = 0.5
    target_precision: float | None = None
    """Flag for this expected precision instead of for the highest expected F1."""
    margin: float = 0.1
    """Without enough verdicts, items are flagged whose candidate leads by more than this."""
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """An expected share with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Decisions:
    """What became of N items; arrays are [N]."""

    judgements: Judgements
    evidence: Suspicion
    beliefs: Beliefs
    verdicts: dict[int, int]
    """All that were used: label index, -1 for neither."""
    action: tuple[Action, ...]
    label: Ints
    """Index of the final label; -1 for a dropped item."""
    flagged: Flags
    gain: NDArray[np.float64]
    gate: Gate
    teacher: Floats | None
    """[N, C]; NaN where it was not asked or could not say."""
    teacher_asked: Ints
    person_asked: Ints
    """In the order of asking: the audit first, then by expected gain."""
    audited: int
    estimates: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    """`wrong` (share of given labels), `precision` and `recall` of the flags; none without enough verdicts."""


def correct(
    judgements: Judgements,
    policy: Policy,
    ask_teacher: AskTeacher | None,
    look_up: LookUp,
    known: Mapping[int, int] | None = None,
) -> Decisions:
    """Decide about every item of `judgements`.

    `look_up` is called with at most `policy.reviews` items in all, those of the audit among them whether known or not.
    `known` are verdicts from before (item → label index, -1 for neither): they stand whatever is said now.
    """
    known = dict(known or {})
    tempered = temper(judgements)
    alone = suspicion(judgements, tempered)
    asked, teacher, rejected = _ask_teacher(alone, policy, ask_teacher, judgements)
    evidence = alone if teacher is None else suspicion(judgements, tempered, teacher)
    never = set(np.flatnonzero(rejected).tolist())
    # whatever is known already: the same items as last time, so that a person's answers to them are not in vain
    prior = calibrate(judgements, evidence, {}).beliefs(evidence)
    audit = choose_audit(evidence, prior, min(policy.audit, policy.reviews), policy.seed)
    verdicts = {**look_up(audit), **known}
    gate = gate_from(judgements, evidence, verdicts, policy.gate_level, never)
    beliefs = calibrate(judgements, evidence, verdicts).beliefs(evidence)
    more = choose_by_gain(
        expected_gain(beliefs, gate_open=gate.open), {*audit.tolist(), *verdicts}, policy.reviews - len(audit)
    )
    if len(more):
        verdicts |= look_up(more)
        gate = gate_from(judgements, evidence, verdicts, policy.gate_level, never)
        beliefs = calibrate(judgements, evidence, verdicts).beliefs(evidence)
    flagged = _flags(beliefs, evidence, policy, len(verdicts)) | rejected
    estimates = _estimates(judgements, evidence, verdicts, flagged, policy.seed)
    for item, verdict in verdicts.items():
        flagged[item] = verdict != judgements.given[item]
    action, label = _decide(judgements, evidence, beliefs, verdicts, flagged, gate, rejected)
    gain = expected_gain(beliefs, gate_open=gate.open)
    gain[list(verdicts)] = 0.0
    people = np.concatenate([audit, more])
    return Decisions(
        judgements, evidence, beliefs, verdicts, action, label, flagged, gain, gate, teacher, asked, people,
        len(audit), estimates,
    )  # fmt: skip


def _ask_teacher(
    evidence: Suspicion, policy: Policy, ask_teacher: AskTeacher | None, judgements: Judgements
) -> tuple[Ints, Floats | None, Flags]:
    """Whom it was asked about, what it says [N, C], and which items it finds no label for."""
    count = len(judgements.ids)
    rejected = np.zeros(count, dtype=bool)
    if ask_teacher is None:
        return np.zeros(0, dtype=np.int64), None, rejected
    order = np.argsort(-evidence.log_ratio, kind="stable")[: int(policy.teacher_share * count)]
    asked = order[evidence.log_ratio[order] > _LEAST_DOUBT]
    teacher = np.full((count, len(judgements.labels)), np.nan, dtype=np.float32)
    told = ask_teacher(asked)
    rejected[asked] = np.nan_to_num(told).argmax(axis=1) == len(judgements.labels)
    rest = told[:, :-1].sum(axis=1, keepdims=True)
    teacher[asked] = np.divide(told[:, :-1], rest, out=np.full_like(told[:, :-1], np.nan), where=rest > 0)
    return asked, teacher, rejected


def _flags(beliefs: Beliefs, evidence: Suspicion, policy: Policy, verdicts: int) -> Flags:
    if verdicts < _ENOUGH:
        if evidence.teacher_log_ratio.any():
            return (evidence.margin > policy.margin) & (evidence.teacher_log_ratio >= 0)
        return evidence.margin > policy.margin
    if policy.target_precision is not None:
        return at_precision(beliefs.p_wrong, policy.target_precision)
    return best_expected_f1(beliefs.p_wrong)


def _estimates(
    judgements: Judgements, evidence: Suspicion, verdicts: Mapping[int, int], flagged: Flags, seed: int
) -> dict[str, Estimate]:
    if len(verdicts) < _ENOUGH:
        return {}

    def shares(beliefs: Beliefs) -> tuple[float, float, float]:
        wrong = beliefs.p_wrong
        caught = float(wrong[flagged].sum())
        return float(wrong.mean()), caught / max(int(flagged.sum()), 1), caught / max(float(wrong.sum()), 1e-9)

    values = shares(calibrate(judgements, evidence, verdicts).beliefs(evidence))
    rounds = [shares(b) for b in resampled(judgements, evidence, verdicts, _ROUNDS, seed)]
    low, high = np.quantile(np.array(rounds), [0.025, 0.975], axis=0)
    names = ("wrong", "precision", "recall")
    return {n: Estimate(v, float(a), float(b)) for n, v, a, b in zip(names, values, low, high, strict=True)}


def _decide(
    judgements: Judgements,
    evidence: Suspicion,
    beliefs: Beliefs,
    verdicts: Mapping[int, int],
    flagged: Flags,
    gate: Gate,
    rejected: Flags,
) -> tuple[tuple[Action, ...], Ints]:
    label = judgements.given.copy()
    action = [Action.REVIEW if flag else Action.KEEP for flag in flagged.tolist()]
    if gate.open:
        for item in np.flatnonzero(flagged & (beliefs.p_candidate > beliefs.p_given) & ~rejected).tolist():
            action[item], label[item] = Action.RELABEL, evidence.candidate[item]
    for item, verdict in verdicts.items():
        label[item] = verdict
        kept = verdict == judgements.given[item]
        action[item] = Action.DROP if verdict < 0 else Action.KEEP if kept else Action.RELABEL
    return tuple(action), label
