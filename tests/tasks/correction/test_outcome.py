"""Decisions as records and as questions to a person."""

import numpy as np
import pytest

from tasks.correction.decide import Decisions, correct
from tasks.correction.judgements import Judgements, index_verdicts
from tasks.correction.outcome import choose_cases, record_corrections
from tasks.correction.settings import CorrectionSettings
from tasks.records import Action, Correction, Sample
from tasks.report.correction.figures import measure
from tests.tasks.correction.judging import answer_from, answer_nothing, make_judgements, make_teacher
from tests.tasks.making import prediction, sample

COUNT = 30
LABELS = ("a", "b", "c")


@pytest.fixture
def samples() -> list[Sample]:
    return [sample(f"i{n}", labels=LABELS, given="a") for n in range(COUNT)] + [
        sample("rare", labels=LABELS, given="c"),
        sample("mute", labels=LABELS, given="a"),
    ]


def judgements() -> Judgements:
    """The first six items are doubted: the students say b."""
    table = np.tile([0.9, 0.05, 0.05], (COUNT, 1))
    table[:6] = [0.1, 0.8, 0.1]
    return make_judgements([0] * COUNT, table)


def records(samples: list[Sample], decisions: Decisions, verdicts: dict[str, str] | None = None) -> list[Correction]:
    ids = decisions.judgements.ids
    unjudged = {"rare": "its class has too few items", "mute": "the student gave no usable answer (malformed)"}
    teacher = {"i0": prediction("i0", "b", reason="看到“b”")}
    fold_of, models = dict.fromkeys(ids, 2), dict.fromkeys(ids, "base+fold2")
    return record_corrections(samples, decisions, fold_of, models, teacher, unjudged, verdicts or {})


def test_every_sample_has_its_record_with_the_evidence(samples: list[Sample]) -> None:
    decisions = correct(
        judgements(),
        CorrectionSettings(review_budget=0),
        make_teacher(np.tile([0.1, 0.7, 0.2], (COUNT, 1))),
        answer_nothing,
    )
    found = records(samples, decisions)
    assert [r.sample_id for r in found] == [s.id for s in samples]
    first, sure, rare = found[0], found[20], found[COUNT]
    assert (first.given, first.predicted, first.adjudicated, first.candidate) == ("a", "b", "b", "b")
    assert first.action is Action.REVIEW and first.flagged and first.label == "a" and not first.reviewed
    assert (first.fold, first.model, first.reason) == (2, "base+fold2", "看到“b”")
    assert first.student_given == pytest.approx(0.1) and first.student_candidate == pytest.approx(0.8)
    assert first.teacher_given == pytest.approx(0.1) and first.teacher_candidate == pytest.approx(0.7)
    assert (first.p_given or 0) + (first.p_candidate or 0) + (first.p_neither or 0) == pytest.approx(1)
    assert "student says b" in first.why and "teacher, asked blind, b" in first.why
    assert sure.action is Action.KEEP and sure.teacher_given is None and "agrees" in sure.why
    assert rare.action is Action.REVIEW and rare.fold is None and rare.p_given is None and rare.label == "c"


def test_verdicts_show_in_records_of_judged_and_unjudged_items(samples: list[Sample]) -> None:
    verdicts = {"i0": "b", "i1": "neither", "i2": "a", "rare": "neither", "mute": "b"}
    table = judgements()
    decisions = correct(table, CorrectionSettings(review_budget=0), (), answer_nothing, index_verdicts(table, verdicts))
    found = {r.sample_id: r for r in records(samples, decisions, verdicts)}
    expected = {
        "i0": (Action.RELABEL, "b"), "i1": (Action.DROP, None), "i2": (Action.KEEP, "a"),
        "rare": (Action.DROP, None), "mute": (Action.RELABEL, "b"),
    }  # fmt: skip
    for identity, (action, label) in expected.items():
        record = found[identity]
        assert (record.action, record.label, record.reviewed) == (action, label, True)
        assert record.verdict == verdicts[identity] and record.why.startswith("reviewer")
        assert record.flagged is (label != record.given)
    assert not any(r.reviewed for i, r in found.items() if i not in verdicts)


def test_the_queue_holds_the_audit_and_what_waits_within_the_budget_by_gain(samples: list[Sample]) -> None:
    decisions = correct(
        judgements(), CorrectionSettings(review_budget=8, audit=8), (), answer_from(dict.fromkeys(range(COUNT), 0))
    )
    found = records(samples, decisions)
    queue = choose_cases(samples, found, decisions, 8)
    assert {c.sample_id for c in queue} == {decisions.judgements.ids[i] for i in decisions.person_asked}
    longer = choose_cases(samples, found, decisions, 20)
    assert {"rare", "mute"} <= {c.sample_id for c in longer}
    assert [c.gain for c in longer] == sorted((c.gain for c in longer), reverse=True)
    case = next(c for c in longer if c.sample_id == "i0")
    assert case.candidate == "b" and case.student == pytest.approx({"a": 0.1, "b": 0.8, "c": 0.1})
    assert case.teacher == {} and "reviewer" not in case.why  # a person must not be influenced by others' verdicts
    assert choose_cases(samples, found, decisions, 0) == []


def test_an_audited_item_is_blind_until_it_is_judged(samples: list[Sample]) -> None:
    teacher = make_teacher(np.tile([0.1, 0.7, 0.2], (COUNT, 1)))
    decisions = correct(judgements(), CorrectionSettings(review_budget=10, audit=8), teacher, answer_nothing)
    found = records(samples, decisions)
    queue = choose_cases(samples, found, decisions, 10)
    audited = [decisions.judgements.ids[i] for i in decisions.person_asked[:8]]
    assert [c.sample_id for c in queue[:8]] == sorted(audited)
    for case in queue[:8]:
        assert case.blind and case.choices == ("a", "b")
        assert (case.given, case.candidate, case.reason, case.why, case.gain) == ("", None, "", "", 0.0)
        assert case.student == case.teacher == {}
    assert not any(c.blind for c in queue[8:])
    assert {r.why for r in found if r.sample_id in audited} == {"chosen for the audit and not judged yet"}
    assert not {s["id"] for s in measure(decisions)["suspects"]} & set(audited)


def test_the_open_gate_does_not_show_what_it_would_do_with_the_rest_of_the_audit(samples: list[Sample]) -> None:
    table = make_judgements([0] * COUNT, np.tile([0.1, 0.8, 0.1], (COUNT, 1)))
    known = dict.fromkeys(range(15), 1)
    decisions = correct(table, CorrectionSettings(review_budget=20, audit=20), (), answer_nothing, known)
    assert decisions.gate.open and decisions.unjudged_audit
    actions = {decisions.action[i] for i in decisions.unjudged_audit}
    assert actions == {Action.REVIEW}
    assert Action.RELABEL in {decisions.action[i] for i in set(range(15, COUNT)) - decisions.unjudged_audit}


def test_judged_items_stay_in_the_queue_for_other_reviewers(samples: list[Sample]) -> None:
    decisions = correct(judgements(), CorrectionSettings(review_budget=2, audit=0), (), answer_nothing, {20: 0})
    queue = choose_cases(samples, records(samples, decisions), decisions, 2, judged=["i20"])
    assert len(queue) == 2 and queue[-1].sample_id == "i20"
