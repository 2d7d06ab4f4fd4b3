"""Decisions about arrays of items as records: one `Correction` a labelled item, and the queue for a person."""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.correction.decide import Decisions
from tasks.correction.judgements import Floats, Judgements
from tasks.records import NEITHER, Action, Correction, Prediction, ReviewCase, Sample


def corrections(
    samples: Sequence[Sample],
    decisions: Decisions,
    fold_of: Mapping[str, int],
    model_of: Mapping[str, str],
    teacher: Mapping[str, Prediction],
    unjudged: Mapping[str, str],
    verdicts: Mapping[str, str],
) -> list[Correction]:
    """The record of each sample, in order.

    `unjudged` (sample id → why) are those without an out-of-fold judgement: they wait for a person, unless `verdicts`
    (sample id → label or `neither`) has theirs. `model_of` names the students that judged an item, `teacher` holds its
    answers.
    """
    places = {identity: i for i, identity in enumerate(decisions.judgements.ids)}
    found: list[Correction] = []
    for sample in samples:
        if sample.id in places:
            record = _judged(decisions, places[sample.id], teacher.get(sample.id))
            update = {"fold": fold_of[sample.id], "model": model_of[sample.id]}
            found.append(record.model_copy(update=update))
        else:
            found.append(_unjudged(sample, unjudged[sample.id], verdicts.get(sample.id)))
    return found


def review_queue(
    samples: Mapping[str, Sample], records: Sequence[Correction], decisions: Decisions, budget: int
) -> list[ReviewCase]:
    """What a person is asked, at most `budget` cases: what was asked, then what gains most."""
    ids, labels = decisions.judgements.ids, decisions.judgements.labels
    places = {identity: i for i, identity in enumerate(ids)}
    by_id = {r.sample_id: r for r in records}
    asked: list[str] = [ids[int(i)] for i in decisions.person_asked]
    waiting = [r.sample_id for r in records if r.action is Action.REVIEW]
    waiting.sort(key=lambda identity: -by_id[identity].gain)
    chosen = list(dict.fromkeys([*asked, *waiting]))[:budget]
    chosen.sort(key=lambda identity: -by_id[identity].gain)
    return [
        _case(samples[i], by_id[i], _row(decisions.judgements.students, labels, places.get(i), samples[i]),
              _row(decisions.teacher, labels, places.get(i), samples[i]))
        for i in chosen
    ]  # fmt: skip


def _judged(decisions: Decisions, item: int, answer: Prediction | None) -> Correction:
    judgements, evidence, beliefs = decisions.judgements, decisions.evidence, decisions.beliefs
    labels = judgements.labels
    given, students = int(judgements.given[item]), judgements.students[item]
    candidate, final = int(evidence.candidate[item]), int(decisions.label[item])
    verdict = decisions.verdicts.get(item)
    told = None if decisions.teacher is None or np.isnan(decisions.teacher[item, 0]) else decisions.teacher[item]
    adjudicated = answer.label if answer is not None else None
    record = Correction(
        sample_id=judgements.ids[item],
        given=labels[given],
        predicted=labels[int(students.argmax())],
        adjudicated=adjudicated,
        candidate=labels[candidate] if candidate >= 0 else None,
        action=decisions.action[item],
        label=labels[final] if final >= 0 else None,
        flagged=bool(decisions.flagged[item]),
        reviewed=verdict is not None,
        verdict=None if verdict is None else NEITHER if verdict < 0 else labels[verdict],
        p_given=float(beliefs.p_given[item]),
        p_candidate=float(beliefs.p_candidate[item]),
        p_neither=float(beliefs.p_neither[item]),
        student_given=float(students[given]),
        student_candidate=float(students[candidate]) if candidate >= 0 else None,
        log_ratio=float(evidence.log_ratio[item]),
        entropy=float(evidence.entropy[item]),
        dissent=float(evidence.dissent[item]),
        teacher_given=None if told is None else float(told[given]),
        teacher_candidate=None if told is None or candidate < 0 else float(told[candidate]),
        gain=float(decisions.gain[item]),
        reason=answer.reason if answer is not None else "",
        why="",
    )
    return record.model_copy(update={"why": _why(record, decisions)})


def _unjudged(sample: Sample, why: str, verdict: str | None) -> Correction:
    given = sample.given or ""
    action, label = Action.REVIEW, given
    if verdict is not None:
        label = None if verdict == NEITHER else verdict
        action = Action.DROP if label is None else Action.KEEP if label == given else Action.RELABEL
        why = f"reviewer: {verdict}; {why}"
    return Correction(
        sample_id=sample.id,
        given=given,
        predicted=None,
        adjudicated=None,
        candidate=None,
        action=action,
        label=label,
        flagged=verdict is not None and verdict != given,
        reviewed=verdict is not None,
        verdict=verdict,
        why=why,
    )


def _why(record: Correction, decisions: Decisions) -> str:
    evidence = _evidence(record)
    if record.verdict == NEITHER:
        return f"reviewer: none of the labels is right; {evidence}"
    if record.verdict is not None:
        return f"reviewer says {record.verdict}; {evidence}"
    if record.action is Action.RELABEL:
        return f"{evidence}; P({record.candidate})={record.p_candidate:.2f}; {decisions.gate.summary}"
    return evidence


def _evidence(record: Correction) -> str:
    """What the models say: all that a person who judges the item is told."""
    if record.predicted is None:
        return record.why
    student = f"student (p={record.student_given or 0:.2f}) agrees with the given label"
    if record.predicted != record.given:
        student = f"student says {record.predicted} (given label p={record.student_given or 0:.2f})"
    return student + (f", teacher, asked blind, {record.adjudicated}" if record.adjudicated else "")


def _row(table: Floats | None, labels: Sequence[str], item: int | None, sample: Sample) -> dict[str, float]:
    if table is None or item is None or np.isnan(table[item, 0]):
        return {}
    found = dict(zip(labels, table[item].tolist(), strict=True))
    return {label: found[label] for label in sample.labels}


def _case(sample: Sample, record: Correction, student: dict[str, float], teacher: dict[str, float]) -> ReviewCase:
    better = record.candidate if (record.student_candidate or 0) > 0 or (record.teacher_candidate or 0) > 0 else None
    return ReviewCase(
        sample_id=sample.id,
        parts=sample.parts,
        labels=sample.labels,
        given=record.given,
        candidate=better,
        student=student,
        teacher=teacher,
        reason=record.reason,
        why=_evidence(record),
        gain=record.gain,
    )


def judged_samples(
    samples: Sequence[Sample], runs: Sequence[Mapping[str, Prediction]], always_train: Sequence[str]
) -> tuple[list[Sample], dict[str, str]]:
    """The samples that every run judged, and why the others were not (sample id → reason)."""
    rare = set(always_train)
    unjudged: dict[str, str] = {}
    for sample in samples:
        if sample.id in rare:
            unjudged[sample.id] = "in every training set: its class, or one that shares its group, has too few items"
            continue
        missing = [run.get(sample.id) for run in runs if (p := run.get(sample.id)) is None or p.label is None]
        if missing:
            outcome = missing[0].outcome if missing[0] is not None else "nothing"
            unjudged[sample.id] = f"the student gave no usable answer ({outcome})"
    return [s for s in samples if s.id not in unjudged], unjudged


def all_labels(samples: Sequence[Sample]) -> list[str]:
    """Every label that some sample may get, in order of first mention."""
    return list(dict.fromkeys(label for sample in samples for label in sample.labels))


def known_verdicts(judgements: Judgements, verdicts: Mapping[str, str]) -> dict[int, int]:
    """Verdicts by sample id as item → label index, -1 for neither; of other items none."""
    labels = {label: i for i, label in enumerate(judgements.labels)} | {NEITHER: -1}
    return {i: labels[verdicts[identity]] for i, identity in enumerate(judgements.ids) if identity in verdicts}
