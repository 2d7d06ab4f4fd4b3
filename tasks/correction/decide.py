"""Correction of given labels: suspicion out of fold, a blind teacher, a person's audit, decisions under the gate.

1. No prediction counts whose student saw the item, or a duplicate of it: `students.folds.check_out_of_fold`.
2. `correct` asks the teacher, which is not shown the given label, about the most suspicious items only;
3. has a person judge a sample of them (gate.py), calibrates on the verdicts (calibration.py), and spends
   what is left of the person's budget where an answer is worth most;
4. decides: verdicts stand; unreviewed labels change only while the gate is open; the rest waits or stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.correction.calibration import (
    Beliefs,
    Flags,
    calibrate,
    flag_at_precision,
    flag_for_best_f1,
    resample_beliefs,
)
from tasks.correction.gate import Gate, choose_audit, choose_by_gain, expect_gain, judge_gate
from tasks.correction.judgements import Floats, Ints, Judgements
from tasks.correction.settings import CorrectionSettings
from tasks.correction.suspicion import Suspicion, measure_suspicion, temper
from tasks.records import Action, Interval

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
_MARGIN = 0.1
"""With fewer verdicts, items are flagged whose candidate leads the given label by more than this."""
_LEAST_DOUBT = -1.5
"""Log-ratio below which no teacher is asked: on human noise (CIFAR-10N) one such item in a hundred was wrong."""


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
    estimates: dict[str, Interval] = field(default_factory=dict[str, Interval])
    """`wrong` (share of given labels), `precision` and `recall` of the flags; none without enough verdicts."""


def correct(
    judgements: Judgements,
    settings: CorrectionSettings,
    ask_teacher: AskTeacher | None,
    look_up: LookUp,
    known: Mapping[int, int] | None = None,
    seed: int = 0,
) -> Decisions:
    """Decide about every item of `judgements`.

    `look_up` is called with at most `settings.review_budget` items in all, those of the audit among them whether known
    or not. `known` are verdicts from before (item → label index, -1 for neither): they stand whatever is said now.
    `seed` draws the audit.
    """
    known = dict(known or {})
    # 1. the students' evidence, and the teacher's about the most suspicious items
    tempered = temper(judgements)
    evidence = measure_suspicion(judgements, tempered)
    asked, teacher, rejected = _ask_teacher(evidence, settings.teacher_share, ask_teacher, judgements)
    if teacher is not None:
        evidence = measure_suspicion(judgements, tempered, teacher)
    never = set(np.flatnonzero(rejected).tolist())
    # 2. the audit: whatever is known already, the same items as last time, so that a person's answers are not in vain
    prior = calibrate(judgements, evidence, {}).beliefs(evidence)
    audit = choose_audit(evidence, prior, min(settings.audit, settings.review_budget), seed)
    verdicts = {**look_up(audit), **known}
    gate = judge_gate(judgements, evidence, verdicts, settings.gate_level, never)
    beliefs = calibrate(judgements, evidence, verdicts).beliefs(evidence)
    # 3. what is left of the budget, where an answer gains most
    gain = expect_gain(beliefs, gate_open=gate.open)
    more = choose_by_gain(gain, {*audit.tolist(), *verdicts}, settings.review_budget - len(audit))
    if len(more):
        verdicts |= look_up(more)
        gate = judge_gate(judgements, evidence, verdicts, settings.gate_level, never)
        beliefs = calibrate(judgements, evidence, verdicts).beliefs(evidence)
    # 4. the decisions
    flagged = _flag(beliefs, evidence, settings.target_precision, len(verdicts)) | rejected
    estimates = _estimate(judgements, evidence, verdicts, flagged, seed)
    for item, verdict in verdicts.items():
        flagged[item] = verdict != judgements.given[item]
    action, label = _choose_actions(judgements, evidence, beliefs, verdicts, flagged, gate, rejected)
    gain = expect_gain(beliefs, gate_open=gate.open)
    gain[list(verdicts)] = 0.0
    return Decisions(
        judgements, evidence, beliefs, verdicts, action, label, flagged, gain, gate, teacher, asked,
        np.concatenate([audit, more]), len(audit), estimates,
    )  # fmt: skip


def _ask_teacher(
    evidence: Suspicion, share: float, ask_teacher: AskTeacher | None, judgements: Judgements
) -> tuple[Ints, Floats | None, Flags]:
    """Return the items it was asked about, what it says [N, C], and which items it finds no label for."""
    count = len(judgements.ids)
    rejected = np.zeros(count, dtype=bool)
    if ask_teacher is None:
        return np.zeros(0, dtype=np.int64), None, rejected
    order = np.argsort(-evidence.log_ratio, kind="stable")[: int(share * count)]
    asked = order[evidence.log_ratio[order] > _LEAST_DOUBT]
    teacher = np.full((count, len(judgements.labels)), np.nan, dtype=np.float32)
    answers = ask_teacher(asked)
    rejected[asked] = np.nan_to_num(answers).argmax(axis=1) == len(judgements.labels)
    rest = answers[:, :-1].sum(axis=1, keepdims=True)
    teacher[asked] = np.divide(answers[:, :-1], rest, out=np.full_like(answers[:, :-1], np.nan), where=rest > 0)
    return asked, teacher, rejected


def _flag(beliefs: Beliefs, evidence: Suspicion, target_precision: float | None, verdicts: int) -> Flags:
    if verdicts < _ENOUGH:
        if evidence.teacher_log_ratio.any():
            return (evidence.margin > _MARGIN) & (evidence.teacher_log_ratio >= 0)
        return evidence.margin > _MARGIN
    if target_precision is not None:
        return flag_at_precision(beliefs.p_wrong, target_precision)
    return flag_for_best_f1(beliefs.p_wrong)


def _estimate(
    judgements: Judgements, evidence: Suspicion, verdicts: Mapping[int, int], flagged: Flags, seed: int
) -> dict[str, Interval]:
    if len(verdicts) < _ENOUGH:
        return {}

    def shares(beliefs: Beliefs) -> tuple[float, float, float]:
        wrong = beliefs.p_wrong
        caught = float(wrong[flagged].sum())
        return float(wrong.mean()), caught / max(int(flagged.sum()), 1), caught / max(float(wrong.sum()), 1e-9)

    values = shares(calibrate(judgements, evidence, verdicts).beliefs(evidence))
    rounds = [shares(b) for b in resample_beliefs(judgements, evidence, verdicts, _ROUNDS, seed)]
    low, high = np.quantile(rounds, [0.025, 0.975], axis=0).tolist()
    names = ("wrong", "precision", "recall")
    return {n: Interval(value=v, low=a, high=b) for n, v, a, b in zip(names, values, low, high, strict=True)}


def _choose_actions(
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
