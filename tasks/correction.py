"""Correction of given labels: suspicion out of fold, adjudication by a blind teacher, decision under the gate.

1. `check_out_of_fold`: no prediction counts whose student saw the item, or a duplicate of it (rule 4).
2. `suspicious`: the student's label differs from the given one.
3. `propose`: the teacher, which was not shown the given label, sides with the given label (keep), with the student
   (a proposal), or with neither (a person's question).
4. `decide`: verdicts of people first; a proposal without a verdict is applied only while the gate is open (rule 6).
"""

from collections.abc import Mapping, Sequence

from tasks.audit import Gate
from tasks.errors import LeakageError
from tasks.folds import content_digest
from tasks.records import Action, Correction, Prediction, Sample

NEITHER = "neither"
"""A verdict: none of the offered labels is right (an unusable item)."""


def check_out_of_fold(samples: Sequence[Sample], fold_of: Mapping[str, int], seen: Mapping[int, set[str]]) -> None:
    """Raise LeakageError if the student of a sample's fold was trained on the sample, or on equal content.

    `seen` holds, by fold, the content digests (`folds.content_digest`) that the student's own training record names.
    """
    for sample in samples:
        fold = fold_of[sample.id]
        if content_digest(sample) in seen[fold]:
            raise LeakageError(
                f"item {sample.id}: the student of fold {fold} was trained on it or on a duplicate of it; "
                "delete that student's folder and run again"
            )


def suspicious(sample: Sample, student: Prediction) -> bool:
    """Whether the out-of-fold student departs from the given label."""
    return student.label is not None and student.label != sample.given


def propose(sample: Sample, student: Prediction, teacher: Prediction | None, fold: int) -> Correction:
    """The open case of one labelled item: KEEP, or REVIEW with or without a candidate.

    `teacher` is None for an item that is not suspicious (it is not asked about those).
    """
    given = sample.given or ""
    p_given = student.probabilities.get(given, 0.0)
    p_predicted = student.probabilities.get(student.label or "", 0.0)
    adjudicated = teacher.label if teacher is not None else None
    candidate, action = None, Action.KEEP
    if student.label is None:
        action, why = Action.REVIEW, f"the student gave no usable answer ({student.outcome})"
    elif student.label == given:
        why = f"student (p={p_given:.2f}) agrees with the given label"
    elif adjudicated == given:
        why = f"student said {student.label} (p={p_predicted:.2f}), the teacher, asked blind, the given label"
    elif adjudicated == student.label:
        action, candidate = Action.REVIEW, adjudicated
        why = f"student (p={p_predicted:.2f}) and teacher, asked blind, both say {adjudicated}"
    else:
        action = Action.REVIEW
        why = f"student said {student.label} (p={p_predicted:.2f}), the teacher {adjudicated or 'nothing usable'}"
    return Correction(
        sample_id=sample.id,
        given=given,
        predicted=student.label,
        adjudicated=adjudicated,
        candidate=candidate,
        action=action,
        label=given,
        fold=fold,
        model=student.model,
        p_given=p_given,
        p_predicted=p_predicted,
        p_teacher_given=teacher.probabilities.get(given, 0.0) if teacher else None,
        p_teacher_candidate=teacher.probabilities.get(candidate or adjudicated or "", 0.0) if teacher else None,
        reason=teacher.reason if teacher else "",
        why=why,
    )


def decide(case: Correction, verdict: str | None, gate: Gate) -> Correction:
    """Close a case. A person's verdict stands; else a proposal is applied if the gate is open and the evidence agrees.

    Without a verdict and with the gate closed the case stays REVIEW and keeps the given label.
    """
    if verdict == NEITHER:
        return _closed(case, Action.DROP, None, verdict, "reviewer: none of the labels is right")
    if verdict is not None:
        action = Action.KEEP if verdict == case.given else Action.RELABEL
        return _closed(case, action, verdict, verdict, f"reviewer says {verdict}; {case.why}")
    if case.candidate is None or not gate.open:
        return case
    student_and_teacher_prefer = case.p_predicted + (case.p_teacher_candidate or 0.0)
    if student_and_teacher_prefer <= case.p_given + (case.p_teacher_given or 0.0):
        return case
    return case.model_copy(
        update={"action": Action.RELABEL, "label": case.candidate, "why": f"{case.why}; {gate.summary}"}
    )


def _closed(case: Correction, action: Action, label: str | None, verdict: str, why: str) -> Correction:
    return case.model_copy(update={"action": action, "label": label, "reviewed": True, "verdict": verdict, "why": why})
