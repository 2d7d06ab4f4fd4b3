"""The mean of several students' answers."""

from tasks.correction.judgements import join_predictions
from tasks.records import Outcome
from tests.tasks.making import prediction


def test_the_label_with_the_highest_mean_probability_wins() -> None:
    sure = prediction("a", "查询物流", probabilities={"查询物流": 0.9, "申请退款": 0.1})
    torn = prediction("a", "申请退款", probabilities={"查询物流": 0.4, "申请退款": 0.6})
    found = join_predictions([{"a": sure}, {"a": torn}, {"a": torn}])["a"]
    assert found.label == "查询物流"
    assert round(found.probabilities["查询物流"], 4) == round((0.9 + 0.4 + 0.4) / 3, 4)


def test_an_answer_that_could_not_be_read_does_not_count() -> None:
    unread = prediction("a", None, outcome=Outcome.MALFORMED)
    read = prediction("a", "申请退款")
    assert join_predictions([{"a": unread}, {"a": read}])["a"].label == "申请退款"
    alone = join_predictions([{"a": unread}])["a"]
    assert (alone.label, alone.outcome) == (None, Outcome.MALFORMED)
