"""Decide about each given label, based on out-of-fold predictions, a teacher's blind answers and a person's verdicts.

The students must not have seen the item or a duplicate of it (checked by `students.folds.check_out_of_fold`). The
teacher is not shown the given label. If there is a verdict, it decides. Otherwise a label changes only while the gate
is open; the other flagged items wait for a review.
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
"""Asks the teacher about the items without showing the given labels, and returns its probabilities [n, C + 1].

The last column is "none of the labels". The row of an item without a usable answer is NaN.
"""
LookUp = Callable[[Ints], Mapping[int, int]]
"""Returns a person's verdicts on the items that have one: maps an item to a label index (-1: neither is right)."""

_ENOUGH = 20
"""Minimum number of verdicts. With fewer, items are flagged by their margin instead of a calibrated probability."""
_ROUNDS = 200
"""Number of bootstrap samples per interval."""
_MARGIN = 0.1
_USUAL_SHARE = 0.5
"""With fewer than `_ENOUGH` verdicts, an item is flagged if its margin is larger than `_MARGIN` and the probability of
its given label is below this share of the mean for that label (at least chance): students that are rarely sure of a
label then flag it less. F1 on drawn screens .576 (margin alone .481, cleanlab .530), on CIFAR-10N .842 (.840) as the
mean of six models."""
_LEAST_DOUBT = -1.5
"""The teacher is asked only about items with a higher log-ratio. On human label noise (CIFAR-10N) 1 % of the others had
a wrong label."""


@dataclass(frozen=True)
class Decisions:
    """The decisions about N items and the reasons for them; arrays are [N]. Made by `correct`; read by outcome.py and
    tasks/report/."""

    judgements: Judgements
    evidence: Suspicion
    beliefs: Beliefs
    verdicts: dict[int, int]
    """All verdicts that were used. Maps an item to a label index (-1: neither label is right)."""
    action: tuple[Action, ...]
    label: Ints
    """Index of the final label; -1 for a dropped item."""
    flagged: Flags
    gain: NDArray[np.float64]
    """Probability that a verdict would correct the item's label; 0 for items with a verdict."""
    gate: Gate
    teacher: Floats | None
    """The teacher's probabilities [N, C]; NaN for items without a usable answer."""
    teacher_asked: Ints
    person_asked: Ints
    """The items looked up, in order: first the audited items, then the others by decreasing expected gain."""
    audited: int
    """How many items of `person_asked` belong to the audit. They do not change without a verdict."""
    estimates: dict[str, Interval] = field(default_factory=dict[str, Interval])
    """The estimated share of `wrong` given labels, and the `precision` and `recall` of the flags; empty if there are
    too few verdicts."""

    @property
    def unjudged_audit(self) -> set[int]:
        """Return the audited items without a verdict. Nobody may see the evidence about them, so that it is blind."""
        return set(self.person_asked[: self.audited].tolist()) - self.verdicts.keys()


def correct(
    judgements: Judgements,
    settings: CorrectionSettings,
    ask_teacher: AskTeacher | None,
    look_up: LookUp,
    known: Mapping[int, int] | None = None,
    seed: int = 0,
) -> Decisions:
    """Decide about every item of `judgements`.

    `look_up` is called for at most `settings.review_budget` items in total, and always for the whole audit. `known`
    maps items to earlier verdicts (a label index, or -1 for neither), which take precedence over new ones. The audit is
    drawn with `seed`.
    """
    known = dict(known or {})
    # 1. Measure the students' evidence, and ask the teacher about the most suspicious items.
    tempered = temper(judgements)
    evidence = measure_suspicion(judgements, tempered)
    asked, teacher, rejected = _ask_teacher(evidence, settings.teacher_share, ask_teacher, judgements)
    if teacher is not None:
        evidence = measure_suspicion(judgements, tempered, teacher)
    never = set(np.flatnonzero(rejected).tolist())
    # 2. Audit. The choice does not depend on known verdicts, so a rerun asks about the same items as before.
    prior = calibrate(judgements, evidence, {}).beliefs(evidence)
    audit = choose_audit(evidence, prior, settings.audit_size, seed)
    verdicts = {**look_up(audit), **known}
    gate = judge_gate(judgements, evidence, verdicts, settings.gate_level, audit.tolist(), never)
    beliefs = calibrate(judgements, evidence, verdicts).beliefs(evidence)
    # 3. Spend the rest of the budget on the items with the highest expected gain.
    gain = expect_gain(beliefs, gate_open=gate.open)
    spent = {*audit.tolist(), *verdicts}
    more = choose_by_gain(gain, spent, max(0, settings.review_budget - len(spent)))
    if len(more):
        verdicts |= look_up(more)
        gate = judge_gate(judgements, evidence, verdicts, settings.gate_level, audit.tolist(), never)
        beliefs = calibrate(judgements, evidence, verdicts).beliefs(evidence)
    # 4. Decide.
    flagged = _flag(judgements, beliefs, evidence, settings.target_precision, len(verdicts)) | rejected
    estimates = _estimate(judgements, evidence, verdicts, flagged, seed)
    for item, verdict in verdicts.items():
        flagged[item] = verdict != judgements.given[item]
    held = rejected.copy()
    held[audit] = True
    action, label = _choose_actions(judgements, evidence, beliefs, verdicts, flagged, gate, held)
    gain = expect_gain(beliefs, gate_open=gate.open)
    gain[list(verdicts)] = 0.0
    return Decisions(
        judgements, evidence, beliefs, verdicts, action, label, flagged, gain, gate, teacher, asked,
        np.concatenate([audit, more]), len(audit), estimates,
    )  # fmt: skip


def _ask_teacher(
    evidence: Suspicion, share: float, ask_teacher: AskTeacher | None, judgements: Judgements
) -> tuple[Ints, Floats | None, Flags]:
    """Return the items asked about, the teacher's probabilities [N, C], and flags [N] for items with no right label."""
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


def _flag(
    judgements: Judgements, beliefs: Beliefs, evidence: Suspicion, target_precision: float | None, verdicts: int
) -> Flags:
    if verdicts < _ENOUGH:
        own = judgements.students[np.arange(len(judgements.given)), judgements.given]
        sums = np.bincount(judgements.given, own, len(judgements.labels))
        means = sums / np.maximum(np.bincount(judgements.given, minlength=len(sums)), 1)
        usual = np.maximum(means, 1 / len(means))[judgements.given]
        doubtful = (evidence.margin > _MARGIN) & (own < _USUAL_SHARE * usual)
        return doubtful & (evidence.teacher_log_ratio >= 0) if evidence.teacher_log_ratio.any() else doubtful
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
    held: Flags,
) -> tuple[tuple[Action, ...], Ints]:
    """Return each item's action and final label. The labels of items that are `held` do not change without a verdict.

    The audit is held because a change that a person sees would tell what the models say about the item.
    """
    label = judgements.given.copy()
    action = [Action.REVIEW if flag else Action.KEEP for flag in flagged.tolist()]
    if gate.open:
        for item in np.flatnonzero(flagged & (beliefs.p_candidate > beliefs.p_given) & ~held).tolist():
            action[item], label[item] = Action.RELABEL, evidence.candidate[item]
    for item, verdict in verdicts.items():
        label[item] = verdict
        kept = verdict == judgements.given[item]
        action[item] = Action.DROP if verdict < 0 else Action.KEEP if kept else Action.RELABEL
    return tuple(action), label
