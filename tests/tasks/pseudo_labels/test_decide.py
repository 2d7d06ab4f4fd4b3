from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.pseudo_labels.decide import KEEPS, PoolDecision, Trust, Trusted, decide, split
from tasks.pseudo_labels.evidence import Evidence, collect_evidence, is_usable
from tasks.pseudo_labels.review_cases import build_review_cases
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.pseudo_labels.trust import fit_trust
from tasks.records import NEITHER, Outcome, Prediction, ReviewCase
from tests.tasks.making import prediction, sample
from tests.tasks.pseudo_labels.drawn_sets import DrawnSet, World, draw

LABEL, OTHER = "申请退款", "查询物流"
NOBODY: Mapping[str, str] = {}


def answer(id: str, p: float, label: str = LABEL) -> Prediction:
    return prediction(id, label, probabilities={label: p, "z": 1 - p})


def make_settings(target: float, **settings: Any) -> PseudoLabelSettings:
    return PseudoLabelSettings(target_precision=target, **settings)


def decide_alone(
    predictions: list[Prediction], target: float, verdicts: Mapping[str, str] = NOBODY, **settings: Any
) -> Trust:
    """Decided by the teacher's own word."""
    found = {p.sample_id: collect_evidence(p) for p in predictions if is_usable(p)}
    return decide(predictions, found, None, make_settings(target, **settings), verdicts)


def kept(trust: Trust) -> list[str]:
    return [i.sample_id for i in trust.items if i.decision in KEEPS]


def decide_drawn(drawn: DrawnSet, target: float = 0.95, rounds: int = 60) -> Trust:
    model = fit_trust(drawn.targets, 0, rounds)
    return decide(drawn.predictions, drawn.evidence, model, make_settings(target), NOBODY)


# --- without a labelled set ----------------------------------------------------------------------------------


def test_the_most_confident_are_kept_while_their_mean_holds() -> None:
    predictions = [answer("a", 0.7), answer("b", 1.0), answer("c", 0.8)]
    trust = decide_alone(predictions, 0.9)
    assert kept(trust) == ["b", "c"] and not trust.calibrated
    stay, gone = split(trust, predictions, "pool")
    assert stay == predictions[1:]
    assert [(d.sample_id, d.stage, d.reason) for d in gone] == [("a", "pool", "not_trusted")]
    assert "by the teacher's own word" in gone[0].detail and "0.700" in gone[0].detail


def test_unusable_answers_are_dropped_with_their_outcome() -> None:
    bad = [prediction("a", None), prediction("b", None, outcome=Outcome.TOO_LONG, detail="9 turns"), answer("c", 1.0)]
    bad.append(prediction("d", LABEL, outcome=Outcome.REFUSED, probabilities={LABEL: 1.0}))
    stay, gone = split(decide_alone(bad, 0.5), bad, "pool")
    assert [p.sample_id for p in stay] == ["c"]
    assert {d.sample_id: d.reason for d in gone} == {"a": "malformed", "b": "too_long", "d": "refused"}
    assert {d.sample_id: d.detail for d in gone}["b"] == "9 turns"


def test_repaired_answers_count() -> None:
    assert kept(decide_alone([prediction("a", outcome=Outcome.REPAIRED, votes={LABEL: 3})], 0.9)) == ["a"]


def test_an_empty_pool_gives_no_decisions() -> None:
    trust = decide_alone([], 0.9)
    assert trust.items == () and (trust.precision.low, trust.precision.high) == (0.0, 1.0)


@pytest.mark.parametrize("count", [3, 7, 1000])
@pytest.mark.parametrize("p", [0.95, 0.7, 0.99])
def test_a_set_exactly_at_the_target_is_kept_whole(p: float, count: int) -> None:
    assert len(kept(decide_alone([answer(f"{i:04}", p) for i in range(count)], p))) == count


chances = st.lists(st.none() | st.floats(0, 1), max_size=30)


@settings(deadline=None, max_examples=40)
@given(chances, st.floats(0.01, 1))
def test_the_kept_set_reaches_its_mean_and_leaves_out_nothing_better(ps: list[float | None], target: float) -> None:
    predictions = [prediction(f"{i:02}", None) if p is None else answer(f"{i:02}", p) for i, p in enumerate(ps)]
    trust = decide_alone(predictions, target)
    stay, gone = split(trust, predictions, "pool")
    assert [i.sample_id for i in trust.items] == [p.sample_id for p in predictions]
    assert Counter([p.sample_id for p in stay] + [d.sample_id for d in gone]) == Counter(
        p.sample_id for p in predictions
    )
    ranked = sorted((p for p in ps if p is not None), reverse=True)
    assert sorted((p.probabilities[LABEL] for p in stay), reverse=True) == ranked[: len(stay)]
    if stay:
        assert sum(ranked[: len(stay)]) / len(stay) >= target - 1e-6
    if len(stay) < len(ranked):
        assert sum(ranked[: len(stay) + 1]) / (len(stay) + 1) < target
    assert set(kept(decide_alone(predictions[::-1], target))) == {p.sample_id for p in stay}


# --- verdicts, caps ------------------------------------------------------------------------------------------


def test_verdicts_override_everything() -> None:
    predictions = [answer("a", 0.2), answer("b", 0.9), answer("c", 0.9), prediction("d", None)]
    trust = decide_alone(predictions, 0.95, verdicts={"a": LABEL, "b": OTHER, "c": NEITHER, "d": OTHER})
    stay, gone = split(trust, predictions, "pool")
    assert {p.sample_id: (p.label, p.source) for p in stay} == {
        "a": (LABEL, "review"), "b": (OTHER, "review"), "d": (OTHER, "review"),
    }  # fmt: skip
    assert all(is_usable(p) and not p.probabilities for p in stay)
    assert [(d.sample_id, d.reason) for d in gone] == [("c", "reviewer_said_neither")]


def test_a_reason_for_another_label_is_removed() -> None:
    predictions = [
        answer("a", 0.9).model_copy(update={"reason": "r"}),
        answer("b", 0.9).model_copy(update={"reason": "r"}),
    ]
    stay, _ = split(decide_alone(predictions, 0.5, verdicts={"a": LABEL, "b": OTHER}), predictions, "pool")
    assert [p.reason for p in stay] == ["r", ""]


def test_caps_leave_out_the_least_confident_of_a_class() -> None:
    predictions = [answer(f"{label}{i}", 0.99 - i / 100, label) for label in "abc" for i in range(5)]
    trust = decide_alone(predictions, 0.5, cap={"a": 1, "b": 3, "nobody": 4})
    assert kept(trust) == ["a0", "b0", "b1", "b2", "c0", "c1", "c2", "c3", "c4"]
    assert kept(decide_alone(predictions, 0.5, cap=1)) == ["a0", "b0", "c0"]
    assert {i.decision for i in trust.items if i.sample_id not in kept(trust)} == {PoolDecision.OVER_QUOTA}
    assert "quota" in trust.items[1].why


def test_floors_are_kept_first_while_the_target_is_reached() -> None:
    predictions = [answer(f"a{i}", 0.99) for i in range(8)] + [answer("b0", 0.6, OTHER), answer("b1", 0.5, OTHER)]
    assert kept(decide_alone(predictions, 0.95)) == [f"a{i}" for i in range(8)]
    floored = decide_alone(predictions, 0.94, floor=1)
    assert kept(floored) == [*(f"a{i}" for i in range(8)), "b0"] and floored.floors_kept
    given_up = decide_alone(predictions, 0.985, floor=2)
    assert kept(given_up) == [f"a{i}" for i in range(8)] and not given_up.floors_kept


# --- calibrated ----------------------------------------------------------------------------------------------


def test_over_and_underconfident_teachers_are_calibrated() -> None:
    boaster, modest = (draw(World(sureness=f, spread=0.3), 1) for f in (3.0, 0.5))
    for drawn in (boaster, modest):
        trust = decide_drawn(drawn)
        truth = np.mean([drawn.right[i] for i in kept(trust)])
        assert trust.calibrated and len(kept(trust)) > 40
        assert trust.precision.low <= truth <= trust.precision.high
        assert trust.precision.value >= 0.95 and truth >= 0.93


def test_nothing_of_a_random_teacher_is_kept_and_the_interval_is_wide() -> None:
    drawn = draw(World(accuracy=-1.0), 4)
    assert len(kept(decide_drawn(drawn))) < 40
    whole = decide_drawn(drawn, target=1e-9)
    truth = np.mean(list(drawn.right.values()))
    assert whole.precision.low <= truth <= whole.precision.high < 0.6


def test_fewer_checked_items_give_a_wider_interval() -> None:
    few, many = (decide_drawn(draw(World(labelled=n), 5), target=1e-9).precision for n in (40, 1500))
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_intervals_cover_and_targets_are_reached() -> None:
    covered = reached = 0
    for seed in range(30):
        drawn = draw(World(accuracy=2.0, labelled=300, pool=300), seed)
        trust = decide_drawn(drawn, target=0.9, rounds=50)
        truth = np.mean([drawn.right[i] for i in kept(trust)])
        covered += bool(trust.precision.low <= truth <= trust.precision.high)
        reached += bool(truth >= 0.9)
    assert covered >= 27 and reached >= 24  # 95 % and 90 %; the benchmark draws hundreds


def test_the_same_seed_gives_the_same_decisions() -> None:
    drawn = draw(World(), 6)
    assert decide_drawn(drawn) == decide_drawn(drawn)


# --- questions to a person ------------------------------------------------------------------------------------

POOL = [sample(i, given=None) for i in "abcdef"]
TEACHER = {s.id: prediction(s.id, probabilities={LABEL: 0.6, OTHER: 0.3, "反馈破损": 0.1}, reason="因为") for s in POOL}


def make_trusted(id: str, expected: float | None, decision: PoolDecision = PoolDecision.NOT_TRUSTED) -> Trusted:
    return Trusted(
        sample_id=id, label=LABEL, expected=expected, evidence=Evidence(), decision=decision, why=f"why {id}"
    )


def build_cases(items: list[Trusted], budget: int) -> list[ReviewCase]:
    run = {"b": prediction("b", OTHER, probabilities={OTHER: 1.0})}
    return build_review_cases(POOL, items, TEACHER, [run, {"b": prediction("b")}], budget)


def test_the_least_certain_items_come_first_up_to_the_budget() -> None:
    items = [make_trusted("a", 0.88), make_trusted("b", 0.45), make_trusted("c", 0.1), make_trusted("d", 0.6)]
    items += [make_trusted("e", 0.99, PoolDecision.KEPT), make_trusted("f", 0.5, PoolDecision.OVER_QUOTA)]
    assert [c.sample_id for c in build_cases(items, 3)] == ["b", "d", "a"]
    assert [c.sample_id for c in build_cases(items, 9)] == ["b", "d", "a", "c"]


def test_reviewed_items_stay_in_the_queue_beyond_the_budget() -> None:
    items = [
        make_trusted("a", 1.0, PoolDecision.REVIEWED),
        make_trusted("b", 0.4),
        make_trusted("c", 0.0, PoolDecision.REVIEWER_SAID_NEITHER),
    ]
    assert [(c.sample_id, c.gain) for c in build_cases(items, 0)] == [("a", 0.0), ("c", 0.0)]


def test_a_case_shows_the_answers_of_all_models() -> None:
    (case,) = build_cases([make_trusted("b", 0.4)], 1)
    assert (case.given, case.candidate, case.reason) == (LABEL, OTHER, "因为")
    assert case.teacher[LABEL] == 0.6 and case.student[OTHER] == 0.5
    assert case.parts == POOL[1].parts and case.labels == POOL[1].labels and "why b" in case.why


def test_an_item_without_an_answer_is_no_case() -> None:
    assert build_cases([make_trusted("a", None, PoolDecision.NO_ANSWER)], 5) == []
