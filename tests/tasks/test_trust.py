from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.records import Outcome, Prediction
from tasks.trust import confidence, keep_trusted
from tests.tasks.making import prediction

LABEL = "申请退款"


def sure(id: str, p: float) -> Prediction:
    return prediction(id, LABEL, probabilities={LABEL: p, "查询物流": 1 - p})


def test_the_most_confident_are_kept_while_their_mean_holds() -> None:
    kept, dropped = keep_trusted([sure("a", 0.7), sure("b", 1.0), sure("c", 0.8)], 0.9, "pool")
    assert [p.sample_id for p in kept] == ["b", "c"]
    assert [(d.sample_id, d.stage, d.reason) for d in dropped] == [("a", "pool", "not_trusted")]


def test_what_is_unusable_is_dropped_with_its_outcome() -> None:
    bad = [prediction("a", None), prediction("b", None, outcome=Outcome.TOO_LONG), sure("c", 1.0)]
    bad.append(prediction("d", LABEL, outcome=Outcome.REFUSED, probabilities={LABEL: 1.0}))
    kept, dropped = keep_trusted(bad, 0.5, "pool")
    assert [p.sample_id for p in kept] == ["c"]
    assert {d.sample_id: d.reason for d in dropped} == {"a": "malformed", "b": "too_long", "d": "refused"}


def test_repaired_answers_count() -> None:
    assert keep_trusted([prediction("a", outcome=Outcome.REPAIRED, votes={LABEL: 3})], 0.9, "pool")[1] == []


@pytest.mark.parametrize("count", [3, 7, 1000])
@pytest.mark.parametrize("p", [0.95, 0.7, 0.99])
def test_a_set_exactly_at_the_target_is_kept_whole(p: float, count: int) -> None:
    assert len(keep_trusted([sure(f"{i:04}", p) for i in range(count)], p, "pool")[0]) == count


def test_confidence_is_the_labels_probability_else_its_share_of_votes_else_none() -> None:
    assert confidence(prediction(probabilities={LABEL: 0.6, "x": 0.4}, votes={LABEL: 1, "x": 2})) == 0.6
    assert confidence(prediction(votes={LABEL: 1, "x": 3})) == 0.25
    assert confidence(prediction()) == 0.0
    assert confidence(prediction(label="y", probabilities={LABEL: 1.0})) == 0.0


chances = st.lists(st.none() | st.floats(0, 1), max_size=30)


@settings(deadline=None)
@given(chances, st.floats(0.01, 1))
def test_the_split_is_whole_its_mean_holds_and_nothing_better_is_left_out(
    ps: list[float | None], target: float
) -> None:
    predictions = [prediction(f"{i:02}", None) if p is None else sure(f"{i:02}", p) for i, p in enumerate(ps)]
    kept, dropped = keep_trusted(predictions, target, "pool")
    assert Counter([p.sample_id for p in kept] + [d.sample_id for d in dropped]) == Counter(
        p.sample_id for p in predictions
    )
    ranked = sorted((p for p in ps if p is not None), reverse=True)
    assert [confidence(p) for p in kept] == ranked[: len(kept)]
    if kept:
        assert sum(map(confidence, kept)) / len(kept) >= target - 1e-6
    if len(kept) < len(ranked):
        assert sum(ranked[: len(kept) + 1]) / (len(kept) + 1) < target
    assert keep_trusted(predictions[::-1], target, "pool")[0] == kept
