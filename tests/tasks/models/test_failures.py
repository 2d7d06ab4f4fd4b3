from collections.abc import Iterator

import pytest

from tasks.errors import TooManyFailures
from tasks.models.failures import FailureLimit
from tasks.records import Outcome, Prediction

LIMIT = FailureLimit("rationales", 0.1)


def make_answers(*outcomes: Outcome) -> Iterator[Prediction]:
    for number, outcome in enumerate(outcomes):
        detail = f"detail {number}"
        yield Prediction(sample_id=f"i{number}", source="t", outcome=outcome, label=None, detail=detail)


def test_half_of_the_questions_failed() -> None:
    answers = make_answers(*[Outcome.OK] * 30, *[Outcome.MALFORMED] * 4, *[Outcome.TRUNCATED] * 26)
    message = (
        r"rationales: 30 of 60 questions failed \(reasons\), more than `max_failed_share: 0.1` allows\. "
        r"Most frequent: truncated, 26 times, e\.g\. item i34 \(detail 34\); raise `max_tokens`, then run again"
    )
    with pytest.raises(TooManyFailures, match=message):
        list(LIMIT.watch(answers, 60, "reasons"))


@pytest.mark.parametrize(
    "outcomes",
    [
        pytest.param([Outcome.OK] * 45 + [Outcome.MALFORMED] * 5, id="as many as allowed"),
        pytest.param([Outcome.OK] + [Outcome.FAILED] * 4, id="fewer than 5"),
        pytest.param([Outcome.BAD_MEDIA] * 50, id="the items' own images"),
        pytest.param([Outcome.REPAIRED] * 50, id="usable answers"),
    ],
)
def test_few_failures_and_bad_media_are_accepted(outcomes: list[Outcome]) -> None:
    assert len(list(LIMIT.watch(make_answers(*outcomes), len(outcomes), "labels"))) == len(outcomes)


def test_asking_stops_early_when_the_limit_is_certain_to_be_exceeded() -> None:
    answers = make_answers(*[Outcome.REFUSED] * 1000)
    with pytest.raises(TooManyFailures, match="200 of 1,000 questions failed"):
        list(LIMIT.watch(answers, 1000, "labels"))
    assert len(list(answers)) == 800  # were not asked
