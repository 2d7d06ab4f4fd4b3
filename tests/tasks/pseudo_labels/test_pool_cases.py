from tasks.pseudo_labels.decide import PoolDecision, Trusted
from tasks.pseudo_labels.evidence import Evidence
from tasks.pseudo_labels.pool_cases import build_review_cases
from tasks.records import ReviewCase
from tests.tasks.making import prediction, sample

LABEL, OTHER = "申请退款", "查询物流"
POOL = [sample(i, given=None) for i in "abcdef"]
TEACHER = {s.id: prediction(s.id, probabilities={LABEL: 0.6, OTHER: 0.3, "反馈破损": 0.1}, reason="因为") for s in POOL}


def trusted(id: str, expected: float | None, decision: PoolDecision = PoolDecision.NOT_TRUSTED) -> Trusted:
    return Trusted(
        sample_id=id, label=LABEL, expected=expected, evidence=Evidence(), decision=decision, why=f"why {id}"
    )


def asked(items: list[Trusted], budget: int) -> list[ReviewCase]:
    run = {"b": prediction("b", OTHER, probabilities={OTHER: 1.0})}
    return build_review_cases(POOL, items, TEACHER, [run, {"b": prediction("b")}], budget)


def test_the_least_certain_of_the_untrusted_come_first_and_no_more_than_allowed() -> None:
    items = [trusted("a", 0.88), trusted("b", 0.45), trusted("c", 0.1), trusted("d", 0.6)]
    items += [trusted("e", 0.99, PoolDecision.KEPT), trusted("f", 0.5, PoolDecision.OVER_QUOTA)]
    assert [c.sample_id for c in asked(items, 3)] == ["b", "d", "a"]
    assert [c.sample_id for c in asked(items, 9)] == ["b", "d", "a", "c"]


def test_what_was_judged_stays_in_the_queue_beyond_the_budget() -> None:
    items = [
        trusted("a", 1.0, PoolDecision.REVIEWED),
        trusted("b", 0.4),
        trusted("c", 0.0, PoolDecision.REVIEWER_SAID_NEITHER),
    ]
    assert [(c.sample_id, c.gain) for c in asked(items, 0)] == [("a", 0.0), ("c", 0.0)]


def test_a_case_shows_what_everybody_says() -> None:
    (case,) = asked([trusted("b", 0.4)], 1)
    assert (case.given, case.candidate, case.reason) == (LABEL, OTHER, "因为")
    assert case.teacher[LABEL] == 0.6 and case.student[OTHER] == 0.5
    assert case.parts == POOL[1].parts and case.labels == POOL[1].labels and "why b" in case.why


def test_the_teachers_silence_is_no_case() -> None:
    assert asked([trusted("a", None, PoolDecision.NO_ANSWER)], 5) == []
