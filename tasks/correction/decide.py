"""Decide about each given label, based on out-of-fold predictions, teachers' blind answers and a person's verdicts.

The students must not have seen the item or a duplicate of it (checked by `students.folds.check_out_of_fold`). No
teacher is shown the given label. If there is a verdict, it decides. Otherwise a label changes only while the gate
is open; the other flagged items wait for a review.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from tasks.correction.calibration import (
    Beliefs,
    Flags,
    calibrate,
    flag_at_precision,
    flag_for_best_f1,
    resample_beliefs,
)
from tasks.correction.gate import Gate, choose_audit, choose_by_gain, expect_gain, judge_gate
from tasks.correction.judgements import Floats, Ints, Judgements, average_answers
from tasks.correction.settings import CorrectionSettings
from tasks.correction.suspicion import Suspicion, measure_suspicion, temper
from tasks.records import Action, Interval

AskTeacher = Callable[[Ints], Floats]
"""Asks the teacher about the items without showing the given labels, and returns its probabilities [n, C + 1].

The last column is "none of the labels". The row of an item without a usable answer is NaN.
"""


@dataclass(frozen=True)
class Adjudicator:
    """A teacher that gives second opinions on suspicious labels."""

    ask: AskTeacher
    share: float | None = None
    """None: it is asked about every suspicious item. A number: only about those whose label is still uncertain after
    the other teachers' answers, and about this share of all items at most, most uncertain first."""


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
"""Teachers are asked only about items with a higher log-ratio. On human label noise (CIFAR-10N) 1 % of the others had
a wrong label."""
_DOUBT = 0.3
"""Uncertainty, in bits, from which on a further teacher is asked. On CIFAR-10N with a cheap and a strong teacher at
prices 1 : 10 this costs 0.36 to 0.47 of asking only the strong one, at an F1 of .839 to .913 (strong: .869 to .898)."""


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
    teachers: tuple[Floats, ...]
    """Each teacher's probabilities [N, C]; NaN for items without a usable answer."""
    asked: tuple[Ints, ...]
    """The items that each teacher was asked about."""
    person_asked: Ints
    """The items looked up, in order: first the audited items, then the others by decreasing expected gain."""
    audited: int
    """How many items of `person_asked` belong to the audit. They do not change without a verdict."""
    estimates: dict[str, Interval] = field(default_factory=dict[str, Interval])
    """The estimated share of `wrong` given labels, and the `precision` and `recall` of the flags; empty if there are
    too few verdicts."""

    @property
    def teacher(self) -> Floats | None:
        """Return the mean [N, C] of the teachers' probabilities; NaN for items without a usable answer."""
        return average_answers(self.teachers) if self.teachers else None

    @property
    def teacher_calls(self) -> int:
        """Return how often a teacher was asked about an item."""
        return sum(map(len, self.asked))

    @property
    def unjudged_audit(self) -> set[int]:
        """Return the audited items without a verdict. Nobody may see the evidence about them, so that it is blind."""
        return set(self.person_asked[: self.audited].tolist()) - self.verdicts.keys()


def correct(
    judgements: Judgements,
    settings: CorrectionSettings,
    teachers: Sequence[Adjudicator],
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
    # 1. Measure the students' evidence, and ask the teachers about the most suspicious items.
    tempered = temper(judgements)
    asked, answers = _ask_teachers(judgements, tempered, settings.teacher_share, teachers)
    answered, rejected = _split_rejections(answers, len(judgements.ids))
    evidence = measure_suspicion(judgements, tempered, answered)
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
        judgements, evidence, beliefs, verdicts, action, label, flagged, gain, gate, answered, asked,
        np.concatenate([audit, more]), len(audit), estimates,
    )  # fmt: skip


def _ask_teachers(
    judgements: Judgements, tempered: NDArray[np.float64], share: float, teachers: Sequence[Adjudicator]
) -> tuple[tuple[Ints, ...], list[Floats]]:
    """Return the items that each teacher was asked about, and its answers [N, C + 1] (see `AskTeacher`)."""
    count = len(judgements.ids)
    evidence = measure_suspicion(judgements, tempered)
    order = np.argsort(-evidence.log_ratio, kind="stable")[: int(share * count)]
    suspicious = order[evidence.log_ratio[order] > _LEAST_DOUBT]
    asked: list[Ints] = []
    answers: list[Floats] = []
    for teacher in teachers:
        items = suspicious
        if teacher.share is not None:
            evidence = measure_suspicion(judgements, tempered, _split_rejections(answers, count)[0])
            wrong = calibrate(judgements, evidence, {}).beliefs(evidence).p_wrong[suspicious]
            doubt = (entr(wrong) + entr(1 - wrong)) / np.log(2)
            most = np.argsort(-doubt, kind="stable")[: int(teacher.share * count)]
            items = suspicious[most[doubt[most] > _DOUBT]]
        table = np.full((count, len(judgements.labels) + 1), np.nan, dtype=np.float32)
        if len(items):
            table[items] = teacher.ask(items)
        asked.append(items)
        answers.append(table)
    return tuple(asked), answers


def _split_rejections(answers: Sequence[Floats], count: int) -> tuple[tuple[Floats, ...], Flags]:
    """Return each teacher's probabilities [N, C] of the labels, and flags [N] of items for which they find none right.

    Such an item is one on which "none of the labels" is likeliest by the mean of the teachers that were asked.
    """
    if not answers:
        return (), np.zeros(count, dtype=bool)
    none = answers[0].shape[1] - 1
    rejected = np.nan_to_num(average_answers(answers)).argmax(axis=1) == none
    found: list[Floats] = []
    for table in answers:
        rest = table[:, :none].sum(axis=1, keepdims=True)
        found.append(np.divide(table[:, :none], rest, out=np.full_like(table[:, :none], np.nan), where=rest > 0))
    return tuple(found), rejected


def _flag(
    judgements: Judgements, beliefs: Beliefs, evidence: Suspicion, target_precision: float | None, verdicts: int
) -> Flags:
    if verdicts < _ENOUGH:
        own = judgements.students[np.arange(len(judgements.given)), judgements.given]
        sums = np.bincount(judgements.given, own, len(judgements.labels))
        means = sums / np.maximum(np.bincount(judgements.given, minlength=len(sums)), 1)
        usual = np.maximum(means, 1 / len(means))[judgements.given]
        doubtful = (evidence.margin > _MARGIN) & (own < _USUAL_SHARE * usual)
        return doubtful & (evidence.teacher_log_ratios.sum(axis=1) >= 0)
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
