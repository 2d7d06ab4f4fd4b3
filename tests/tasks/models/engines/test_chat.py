"""The text of a reply is what the model answered, never what it thought."""

from typing import Any

import pytest

from tasks.models.engines.server.chat import read_reply, read_token_logprobs
from tasks.records import Generation, Outcome
from tests.tasks.models.engines.small_provider import completion


def read(**choice: Any) -> Generation | None:
    return read_reply(completion(**choice), "k", 1)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_never_the_answer(name: str) -> None:
    whole = read(message={"content": "答案", name: "想一想"})
    only_thoughts = read(message={"content": None, name: "想一想"})
    assert whole is not None and whole.texts == ("答案",)
    assert only_thoughts is not None and only_thoughts.outcome is Outcome.EMPTY and only_thoughts.texts == ("",)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", ["", None])
def test_thinking_that_used_all_tokens_is_a_truncated_answer(content: str | None, name: str) -> None:
    answer = read(message={"content": content, name: "想一想"}, finish_reason="length")
    assert answer is not None
    assert (answer.outcome, answer.texts) == (Outcome.TRUNCATED, ("<think>想一想",))
    assert "thinking" in answer.detail


def test_log_probabilities_above_zero_are_left_out() -> None:
    top = [{"token": "token_id:1", "logprob": 2.3}, {"token": "token_id:2", "logprob": -0.1}]
    assert read_token_logprobs(completion(logprobs={"content": [{"top_logprobs": top}]})) == {2: -0.1}
