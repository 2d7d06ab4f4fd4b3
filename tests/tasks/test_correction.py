import pytest

from tasks.audit import Gate
from tasks.correction import NEITHER, check_out_of_fold, decide, propose, suspicious
from tasks.errors import LeakageError
from tasks.folds import content_digest
from tasks.records import Action, Correction, Outcome, Prediction
from tests.tasks.making import correction, image, prediction, proposal, sample

GIVEN, OTHER, THIRD = "申请退款", "查询物流", "反馈破损"
OPEN = Gate(wins=20, losses=1, neither=0, lower=0.8, level=0.5)
CLOSED = Gate(wins=1, losses=1, neither=0, lower=0.1, level=0.5)


def student(label: str | None, p_given: float = 0.2, p_label: float = 0.7) -> Prediction:
    probabilities = {GIVEN: p_given, label: p_label} if label else {}
    return prediction("s", label, source="student/fold=3", probabilities=probabilities, model="base+fold3")


def teacher(label: str | None) -> Prediction:
    return prediction("s", label, probabilities={GIVEN: 0.3, OTHER: 0.6}, reason="看到“到哪了”")


# --- leakage -------------------------------------------------------------------------------------------------


def test_a_student_that_saw_the_item_or_its_duplicate_is_refused() -> None:
    a, b = sample("a", image("1")), sample("b", image("2"))
    seen = {0: {content_digest(b)}, 1: {content_digest(a)}}
    check_out_of_fold([a, b], {"a": 0, "b": 1}, seen)
    with pytest.raises(LeakageError, match="item a: the student of fold 1"):
        check_out_of_fold([a, b], {"a": 1, "b": 1}, seen)
    twin = sample("twin", image("2", "/another/path.png"), given=THIRD)
    with pytest.raises(LeakageError, match="item twin"):
        check_out_of_fold([twin], {"twin": 0}, seen)


# --- proposals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "expected"), [(GIVEN, False), (OTHER, True), (None, False)])
def test_an_item_is_suspicious_when_the_student_says_another_label(label: str | None, expected: bool) -> None:
    assert suspicious(sample(), student(label)) is expected


@pytest.mark.parametrize(
    ("said", "judged", "action", "candidate", "adjudicated"),
    [
        pytest.param(GIVEN, None, Action.KEEP, None, None, id="student agrees, teacher not asked"),
        pytest.param(OTHER, GIVEN, Action.KEEP, None, GIVEN, id="teacher sides with the given label"),
        pytest.param(OTHER, OTHER, Action.REVIEW, OTHER, OTHER, id="student and teacher agree on another"),
        pytest.param(OTHER, THIRD, Action.REVIEW, None, THIRD, id="teacher says a third"),
    ],
)
def test_cases(said: str, judged: str | None, action: Action, candidate: str | None, adjudicated: str | None) -> None:
    case = propose(sample(), student(said), teacher(judged) if judged else None, 3)
    assert (case.action, case.candidate, case.adjudicated) == (action, candidate, adjudicated)
    assert (case.given, case.predicted, case.label, case.fold, case.model) == (GIVEN, said, GIVEN, 3, "base+fold3")
    assert not case.reviewed and case.verdict is None and case.why


def test_unusable_answers_are_a_persons_question() -> None:
    for said, judged in ((None, None), (OTHER, None)):
        case = propose(sample(), student(said), teacher(judged), 0)
        assert (case.action, case.candidate, case.label) == (Action.REVIEW, None, GIVEN)
    assert Outcome.MALFORMED in propose(sample(), student(None), None, 0).why


def test_the_evidence_is_written_down() -> None:
    case = propose(sample(), student(OTHER), teacher(OTHER), 0)
    assert (case.p_given, case.p_predicted) == (0.2, 0.7)
    assert (case.p_teacher_given, case.p_teacher_candidate) == (0.3, 0.6)
    assert case.reason == "看到“到哪了”"
    unasked = propose(sample(), student(GIVEN), None, 0)
    assert (unasked.p_teacher_given, unasked.p_teacher_candidate, unasked.reason) == (None, None, "")


# --- decisions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", [OPEN, CLOSED])
@pytest.mark.parametrize(
    ("verdict", "action", "label"),
    [
        (GIVEN, Action.KEEP, GIVEN),
        (OTHER, Action.RELABEL, OTHER),
        (THIRD, Action.RELABEL, THIRD),
        (NEITHER, Action.DROP, None),
    ],
)
def test_a_persons_verdict_stands_whatever_the_gate(
    gate: Gate, verdict: str, action: Action, label: str | None
) -> None:
    for case in (proposal(), correction(action=Action.REVIEW)):
        closed = decide(case, verdict, gate)
        assert (closed.action, closed.label, closed.reviewed, closed.verdict) == (action, label, True, verdict)
        assert "reviewer" in closed.why


def test_a_proposal_is_applied_only_while_the_gate_is_open() -> None:
    assert decide(proposal(), None, CLOSED) == proposal()
    applied = decide(proposal(), None, OPEN)
    assert (applied.action, applied.label, applied.reviewed, applied.verdict) == (Action.RELABEL, OTHER, False, None)
    assert "gate open" in applied.why


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(correction(action=Action.REVIEW, predicted=OTHER, adjudicated=THIRD), id="no candidate"),
        pytest.param(
            proposal(p_given=0.45, p_predicted=0.5, p_teacher_given=0.6, p_teacher_candidate=0.4), id="evidence against"
        ),
        pytest.param(
            proposal(p_given=0.25, p_predicted=0.5, p_teacher_given=0.5, p_teacher_candidate=0.25), id="evidence equal"
        ),
    ],
)
def test_without_evidence_for_it_nothing_changes_even_with_the_gate_open(case: Correction) -> None:
    assert decide(case, None, OPEN) == case
