"""The text of a reply is what the model answered, never what it thought."""

import json
from typing import Any

import pytest

from tasks.models.engines.server.chat import (
    Capabilities,
    Thinking,
    build_chat_body,
    join_replies,
    read_reply,
    read_token_logprobs,
)
from tasks.records import Generation, Outcome, Sampling
from tests.tasks.making import prompter, sample
from tests.tasks.models.engines.small_provider import completion


def read(**choice: Any) -> Generation | None:
    return read_reply(completion(**choice), "k", 1)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_never_the_answer(name: str) -> None:
    whole = read(message={"content": "答案", name: "想一想"})
    only_thoughts = read(message={"content": None, name: "想一想"})
    assert whole is not None and (whole.texts, whole.thoughts) == (("答案",), ("想一想",))
    assert only_thoughts is not None and only_thoughts.outcome is Outcome.EMPTY and only_thoughts.texts == ("",)
    assert only_thoughts.thoughts == ("想一想",)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", ["", None])
def test_thinking_that_used_all_tokens_is_a_truncated_answer(content: str | None, name: str) -> None:
    answer = read(message={"content": content, name: "想一想"}, finish_reason="length")
    assert answer is not None
    assert (answer.outcome, answer.texts) == (Outcome.TRUNCATED, ("<think>想一想",))
    assert "thinking" in answer.detail


def test_thoughts_follow_their_texts_and_their_tokens_are_counted() -> None:
    message = {"content": "答", "reasoning_content": "想"}
    choices = [
        {"index": 0, "finish_reason": "length", "message": message},
        {"index": 1, "finish_reason": "stop", "message": {"content": "好"}},
    ]
    usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    answer = read_reply({"choices": choices, "usage": usage}, "k", 2)
    assert answer is not None and (answer.texts, answer.thoughts) == (("好", "答"), ("", "想"))
    assert (answer.tokens_out, answer.tokens_thinking) == (9, 4)
    assert join_replies([answer, answer]).thoughts == ("", "想") * 2


@pytest.mark.parametrize(
    ("thinking", "tokens", "formed", "switch"),
    [
        (Thinking.NOT_ASKED, 0, True, None),
        (Thinking.WITH_SCHEMA, 100, True, True),
        (Thinking.WITHOUT_SCHEMA, 100, False, True),
        (Thinking.WITHOUT_SCHEMA, 0, True, False),
        (Thinking.NEVER, 100, True, None),
    ],
)
def test_what_is_sent_fits_what_the_server_makes_of_thinking(
    thinking: Thinking, tokens: int, formed: bool, switch: bool | None
) -> None:
    request = prompter().classify(sample(), Sampling(max_tokens=10)).model_copy(update={"thinking": tokens})
    body = json.loads(build_chat_body(request, "m", [], Capabilities(thinking=thinking), n=1, seed=0))
    assert body["max_tokens"] == 10 + 64 + tokens
    assert ("response_format" in body) is formed
    assert body.get("chat_template_kwargs", {}).get("enable_thinking") is switch


def test_a_draft_is_the_models_turn_and_the_instruction_follows_again() -> None:
    request = prompter().classify(sample(), Sampling()).model_copy(update={"drafts": ("想一想",)})
    body = json.loads(build_chat_body(request, "m", [], Capabilities(), n=1, seed=0, draft="想一想"))
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == "想一想"
    assert body["messages"][2]["content"] == request.suffix.strip()


def test_log_probabilities_above_zero_are_left_out() -> None:
    top = [{"token": "token_id:1", "logprob": 2.3}, {"token": "token_id:2", "logprob": -0.1}]
    assert read_token_logprobs(completion(logprobs={"content": [{"top_logprobs": top}]})) == {2: -0.1}
