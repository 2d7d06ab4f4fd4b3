"""Label probabilities from the alternatives of each token, as OpenAI and DashScope report them."""

import math
from typing import Any

import pytest

from tasks.models.engines.batch.weighing import weigh_labels
from tasks.records import LabelAnswer


def constraint(*labels: str) -> LabelAnswer:
    return LabelAnswer(
        labels=labels, reason_key=None, label_key="label", opening='{"label": "', between=None, closing='"}'
    )  # fmt: skip


def choice(*tokens: tuple[str, dict[str, float]], chosen: float = 1.0) -> dict[str, Any]:
    """A choice whose tokens have the probability `chosen`, and alternatives with theirs."""
    content = [
        {
            "token": text.encode().decode("latin-1"),
            "logprob": math.log(others.get(text, chosen)),
            "others": [[other.encode().decode("latin-1"), math.log(p)] for other, p in others.items()],
        }
        for text, others in tokens
    ]
    return {"logprobs": {"content": content}}


def probabilities(weighed: dict[str, float] | None) -> dict[str, float]:
    assert weighed is not None
    return {label: math.exp(value) for label, value in weighed.items()}


def test_the_first_token_decides() -> None:
    answer = choice(('{"label": "', {}), ("re", {"re": 0.7, "sh": 0.2, "x": 0.1}), ("fund", {}), ('"}', {}))
    found = probabilities(weigh_labels([answer], constraint("refund", "shipping")))
    assert found == pytest.approx({"refund": 0.7 / 0.9, "shipping": 0.2 / 0.9})


def test_labels_that_begin_alike_part_later_and_the_others_share_the_rest() -> None:
    answer = choice(
        ('{"label":', {}), (' "re', {' "re': 0.8, ' "sh': 0.1}), ("fund", {"fund": 0.75, "turn": 0.25}), ('"}', {})
    )
    found = probabilities(weigh_labels([answer], constraint("refund", "return", "shipping", "other")))
    assert found == pytest.approx({"refund": 0.6, "return": 0.2, "shipping": 0.1, "other": 0.1})


def test_a_label_that_begins_another_ends_with_its_quote() -> None:
    answer = choice(('{"label": "', {}), ("re", {}), ("fund", {}), ('"}', {'"}': 0.9, "s": 0.1}))
    found = probabilities(weigh_labels([answer], constraint("refund", "refunds")))
    assert found == pytest.approx({"refund": 0.9, "refunds": 0.1})


def test_votes_are_averaged_and_chinese_labels_are_read() -> None:
    votes = [choice(('{"label": "', {}), ("退", {"退": p, "查": 1 - p}), ("款", {}), ('"}', {})) for p in (0.9, 0.5)]
    found = probabilities(weigh_labels(votes, constraint("退款", "查询")))
    assert found == pytest.approx({"退款": 0.7, "查询": 0.3})


@pytest.mark.parametrize("answer", [{}, {"logprobs": None}, choice(("no label here", {}))])
def test_without_alternatives_there_are_no_probabilities(answer: dict[str, Any]) -> None:
    assert weigh_labels([answer], constraint("a", "b")) is None
