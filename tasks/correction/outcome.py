"""Convert the decisions to records, review cases, figures and rows for JSON."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.correction.decide import Decisions
from tasks.correction.judgements import Floats
from tasks.records import NEITHER, Action, Correction, Prediction, ReviewCase, Sample
from tasks.review.queue import order_queue
from tasks.storage.files import write_bytes

SUSPICIOUS = "suspicious.csv"
"""Name of the table of labels that look wrong, in the stage's folder."""
_LOW_AGREEMENT = 0.5
_UNJUDGED_AUDIT = "chosen for the audit and not judged yet"


def record_corrections(
    samples: Sequence[Sample],
    decisions: Decisions,
    fold_of: Mapping[str, int],
    model_of: Mapping[str, str],
    teacher: Mapping[str, Prediction],
    unjudged: Mapping[str, str],
    verdicts: Mapping[str, str],
) -> list[Correction]:
    """Return a record for each sample, in the order of `samples`.

    All mappings are keyed by sample id. `model_of` gives the students that predicted a sample, `fold_of` its fold, and
    `teacher` the teacher's answer. `unjudged` gives the reason why a sample has no out-of-fold prediction. Such a
    sample waits for a review, unless `verdicts` has a verdict on it (a label or `neither`).
    """
    places = {identity: i for i, identity in enumerate(decisions.judgements.ids)}
    unjudged_audit = decisions.unjudged_audit
    found: list[Correction] = []
    for sample in samples:
        if sample.id in places:
            record = _record_judged(decisions, places[sample.id], teacher.get(sample.id))
            update = {
                "fold": fold_of[sample.id],
                "model": model_of[sample.id],
                "why": _UNJUDGED_AUDIT if places[sample.id] in unjudged_audit else _explain(record, decisions),
            }
            found.append(record.model_copy(update=update))
        else:
            found.append(_record_unjudged(sample, unjudged[sample.id], verdicts.get(sample.id)))
    return found


def choose_cases(
    samples: Sequence[Sample],
    records: Sequence[Correction],
    decisions: Decisions,
    budget: int,
    judged: Collection[str] = (),
) -> list[ReviewCase]:
    """Return at most `budget` cases for review, ordered by `order_queue`; more only if more are in `judged`.

    The cases are the items whose verdict was looked up and, if the budget allows more, items that wait for a review.
    `records` has one entry per sample, in the order of `samples`. `judged` has the ids of all items with an imported
    verdict. They stay in the queue, so that others can judge them and verdicts can be changed.
    """
    ids, labels = decisions.judgements.ids, decisions.judgements.labels
    places = {identity: i for i, identity in enumerate(ids)}
    blind = {ids[i] for i in decisions.unjudged_audit}
    asked = {ids[int(i)] for i in decisions.person_asked[:budget]}
    kept = asked.union(judged)

    def case(sample: Sample, record: Correction) -> ReviewCase:
        if sample.id in blind:
            return _make_blind_case(sample, record)
        place = places.get(sample.id)
        candidates = (record.student_candidate, record.teacher_candidate)
        return _make_case(
            sample,
            boxes=sample.boxes,
            given=record.given,
            candidate=record.candidate if any(candidates) else None,
            student=_probabilities(decisions.judgements.students, labels, place, sample),
            teacher=_probabilities(decisions.teacher, labels, place, sample),
            reason=record.reason,
            why=_describe_evidence(record),
            gain=record.gain,
        )

    cases = (
        case(sample, record)
        for sample, record in zip(samples, records, strict=True)
        if record.action is Action.REVIEW or sample.id in kept
    )
    return order_queue(cases, max(0, budget - len(kept)), kept=kept)


def _make_blind_case(sample: Sample, record: Correction) -> ReviewCase:
    """Return a case that offers the given label and another one without telling which is which.

    The other is the candidate or, without one, the label that follows the given one. The item's boxes are left out:
    who drew them knew the given label.
    """
    place = sample.labels.index(record.given)
    other = record.candidate if record.candidate in sample.labels else sample.labels[(place + 1) % len(sample.labels)]
    choices = tuple(label for label in sample.labels if label in (record.given, other))
    return _make_case(sample, given="", candidate=None, blind=True, choices=choices)


def _make_case(sample: Sample, **fields: Any) -> ReviewCase:
    return ReviewCase(sample_id=sample.id, source=sample.source, parts=sample.parts, labels=sample.labels, **fields)


def write_suspicious(samples: Sequence[Sample], corrections: Sequence[Correction], file: Path) -> None:
    """Write the flagged items as CSV for spreadsheets, the likeliest errors first.

    Items of the audit that nobody has judged are left out, because nobody may see what models say about them.
    """
    rows = [
        (s.id, c.given, c.candidate, f"{1 - c.p_given:.3f}", c.action, c.verdict, s.source)
        for s, c in zip(samples, corrections, strict=True)
        if c.flagged and c.p_given is not None and c.why != _UNJUDGED_AUDIT
    ]
    columns = ["id", "given", "candidate", "p_wrong", "action", "verdict", "source"]
    table = pd.DataFrame(sorted(rows, key=lambda row: (-float(row[3]), row[0])), columns=columns)
    write_bytes(file, table.to_csv(index=False, lineterminator="\n").encode("utf-8-sig"))  # Excel needs the mark


def describe_agreement(agreeing: int, items: int) -> tuple[str, str]:
    """Return how many given labels the students predict, as a sentence, and advice if they are few, else "".

    Students that know little suspect many right labels.
    """
    share = agreeing / max(items, 1)
    sentence = f"The students agree with {share:.0%} of {items:,} given labels."
    if share >= _LOW_AGREEMENT:
        return sentence, ""
    return sentence, (
        f"The students agree with only {share:.0%} of the labels, so their suspicion says little: add items or text "
        "(`ocr` in the pack shows the text on images), or check whether people can tell the labels apart."
    )


def count_figures(corrections: Sequence[Correction], decisions: Decisions) -> dict[str, float]:
    """Return the figures for the stage's record: numbers of items, audit results, and the changes' expected effect."""
    actions = Counter(c.action for c in corrections)
    changed = [c for c in corrections if c.action is Action.RELABEL]
    unreviewed = [c for c in changed if not c.reviewed]
    return {
        "disagreements": sum(c.predicted is not None and c.predicted != c.given for c in corrections),
        "asked of the teacher": decisions.teacher_calls,
        "asked of the reviewer": len(decisions.person_asked),
        "reviewed": sum(c.reviewed for c in corrections),
        "audited wins": decisions.gate.wins,
        "audited losses": decisions.gate.losses,
        "gate lower bound": decisions.gate.lower,
        "flagged": sum(c.flagged for c in corrections),
        "relabelled": len(changed),
        "relabelled without a person": len(unreviewed),
        "expected right to wrong": sum(c.p_given or 0.0 for c in unreviewed),
        "expected wrong to right": sum(c.p_candidate or 0.0 for c in unreviewed),
        "dropped by the reviewer": actions[Action.DROP],
        "waiting for review": actions[Action.REVIEW],
        **{f"estimated {name}": e.value for name, e in decisions.estimates.items()},
    }


def summarise(decisions: Decisions) -> dict[str, object]:
    """Return the counts, the gate and the estimates for the JSON summary that `labelstill find-errors` prints."""
    gate = decisions.gate
    actions = Counter(decisions.action)
    unreviewed = sum(
        action == "relabel" and item not in decisions.verdicts for item, action in enumerate(decisions.action)
    )
    return {
        "items": len(decisions.action),
        "flagged": int(decisions.flagged.sum()),
        "reviews": len(decisions.person_asked),
        "verdicts": len(decisions.verdicts),
        "teacher_calls": decisions.teacher_calls,
        **{action.value: actions[action] for action in sorted(actions)},
        "relabelled_unreviewed": unreviewed,
        "gate": "open" if gate.open else "closed",
        "gate_why": gate.summary,
        "wins": gate.wins,
        "losses": gate.losses,
        "lower_bound": round(gate.lower, 4),
        **{
            name: {"value": round(e.value, 4), "low": round(e.low, 4), "high": round(e.high, 4)}
            for name, e in decisions.estimates.items()
        },
    }


def list_rows(decisions: Decisions) -> Iterator[dict[str, object]]:
    """Yield one row per item for JSON, in the order of the items.

    `suspicion` is the probability that the given label is wrong. All probabilities come from the models, even if a
    verdict has decided about the item.
    """
    judgements, beliefs = decisions.judgements, decisions.beliefs
    labels = (*judgements.labels, None)  # -1 is none of them
    columns: dict[str, Iterable[object]] = {
        "id": judgements.ids,
        "given": [labels[i] for i in judgements.given.tolist()],
        "flagged": decisions.flagged.tolist(),
        "reviewed": [item in decisions.verdicts for item in range(len(judgements.ids))],
        "action": decisions.action,
        "label": [labels[i] for i in decisions.label.tolist()],
        "p_given": beliefs.p_given.tolist(),
        "p_candidate": beliefs.p_candidate.tolist(),
        "p_neither": beliefs.p_neither.tolist(),
        "suspicion": beliefs.p_wrong.tolist(),
    }
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _record_judged(decisions: Decisions, item: int, answer: Prediction | None) -> Correction:
    judgements, evidence, beliefs = decisions.judgements, decisions.evidence, decisions.beliefs
    labels = (*judgements.labels, None)  # -1 is none of them
    given, candidate = int(judgements.given[item]), int(evidence.candidate[item])
    verdict = decisions.verdicts.get(item)

    def probability(table: Floats | None, label: int) -> float | None:
        return None if table is None or label < 0 or np.isnan(table[item, label]) else float(table[item, label])

    return Correction(
        sample_id=judgements.ids[item],
        given=judgements.labels[given],
        predicted=labels[int(judgements.students[item].argmax())],
        adjudicated=answer.label if answer else None,
        candidate=labels[candidate],
        action=decisions.action[item],
        label=labels[int(decisions.label[item])],
        flagged=bool(decisions.flagged[item]),
        reviewed=verdict is not None,
        verdict=None if verdict is None else labels[verdict] or NEITHER,
        p_given=float(beliefs.p_given[item]),
        p_candidate=float(beliefs.p_candidate[item]),
        p_neither=float(beliefs.p_neither[item]),
        student_given=probability(judgements.students, given),
        student_candidate=probability(judgements.students, candidate),
        log_ratio=float(evidence.log_ratio[item]),
        entropy=float(evidence.entropy[item]),
        dissent=float(judgements.dissent[item]),
        teacher_given=probability(decisions.teacher, given),
        teacher_candidate=probability(decisions.teacher, candidate),
        gain=float(decisions.gain[item]),
        reason=answer.reason if answer else "",
        boxes=answer.boxes if answer else (),
        why="",
    )


def replace_reasons(corrections: Sequence[Correction], chosen: Iterable[Prediction]) -> list[Correction]:
    """Return `corrections` with the reasons and boxes of the predictions in `chosen`."""
    found = {p.sample_id: {"reason": p.reason, "boxes": p.boxes} for p in chosen}
    return [c.model_copy(update=found.get(c.sample_id, {})) for c in corrections]


def _record_unjudged(sample: Sample, why: str, verdict: str | None) -> Correction:
    given = sample.given or ""
    action = Action.REVIEW
    label: str | None = given
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


def _explain(record: Correction, decisions: Decisions) -> str:
    evidence = _describe_evidence(record)
    if record.verdict == NEITHER:
        return f"reviewer: none of the labels is right; {evidence}"
    if record.verdict is not None:
        return f"reviewer says {record.verdict}; {evidence}"
    if record.action is Action.RELABEL:
        return f"{evidence}; P({record.candidate})={record.p_candidate:.2f}; {decisions.gate.summary}"
    return evidence


def _describe_evidence(record: Correction) -> str:
    """Return what the models say: all the evidence that a person who judges the item may see."""
    if record.predicted is None:
        return record.why
    student = f"student (p={record.student_given or 0:.2f}) agrees with the given label"
    if record.predicted != record.given:
        student = f"student says {record.predicted} (given label p={record.student_given or 0:.2f})"
    return student + (f", teacher, asked blind, {record.adjudicated}" if record.adjudicated else "")


def _probabilities(table: Floats | None, labels: Sequence[str], item: int | None, sample: Sample) -> dict[str, float]:
    if table is None or item is None or np.isnan(table[item, 0]):
        return {}
    found = dict(zip(labels, table[item].tolist(), strict=True))
    return {label: found[label] for label in sample.labels}
