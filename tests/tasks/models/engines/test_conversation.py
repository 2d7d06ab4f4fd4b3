"""A reply whose label probabilities fail is kept: only the probe is repeated."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.models.engines.server.chat import Capabilities
from tasks.models.engines.server.conversation import Conversation, Prepared, ProbeFailed
from tasks.models.engines.server.retries import Refused
from tasks.models.image_cache import ImageCache
from tasks.models.processor import read_processor
from tasks.models.unanswered import Unanswered
from tasks.records import Generation, Outcome, Sampling
from tests.tasks.making import prompter, sample
from tests.tasks.models.engines.small_provider import completion


class ShakyClient:
    """Answers every question, and fails at the first label probes with the given errors."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.questions = 0
        self.weighed: list[str] = []

    async def post(self, body: bytes, tokens: int = 0) -> dict[str, Any]:
        wanted = json.loads(body).get("logprob_token_ids")
        if wanted is None:
            self.questions += 1
            message = {"content": '{"理由": "见文", "所属类别": "查询物流"}', "reasoning_content": "想一想"}
            return completion(message=message)
        self.weighed.append(json.loads(body)["messages"][-1]["content"])
        if self.failures:
            raise self.failures.pop(0)
        tokens_ = [{"token": f"token_id:{token}", "logprob": -1.0} for token in wanted]
        return completion(logprobs={"content": [{"top_logprobs": tokens_}]})


def answer(client: ShakyClient, checkpoint: Path, folder: Path, **fields: Any) -> Generation:
    processor = read_processor(str(checkpoint))
    conversation = Conversation(client, "m", Capabilities(), processor, 14, ImageCache(folder))  # type: ignore[arg-type]
    request = prompter().classify(sample(), Sampling(label_probabilities=True)).model_copy(update=fields)
    prepared = Prepared(request, (), "")
    while True:
        try:
            return asyncio.run(conversation.answer(prepared))
        except ProbeFailed as failed:
            prepared = failed.prepared


def test_a_failed_probe_is_repeated_alone(checkpoint: Path, tmp_path: Path) -> None:
    client = ShakyClient(Unanswered("busy"), Unanswered("busy"))
    found = answer(client, checkpoint, tmp_path)
    assert found.label_logprobs and len(found.label_logprobs) == 3
    assert client.questions == 1


@pytest.mark.parametrize(
    ("fields", "begins"),
    [
        ({}, '{"理由": "见文"'),
        ({"thinking": 50}, '<think>\n想一想\n</think>\n\n{"理由": "见文"'),
        ({"drafts": ("想过了",)}, '{"理由": "见文"'),
    ],
)
def test_labels_are_weighed_after_what_was_thought(
    fields: dict[str, Any], begins: str, checkpoint: Path, tmp_path: Path
) -> None:
    client = ShakyClient()
    assert answer(client, checkpoint, tmp_path, **fields).label_logprobs
    assert client.weighed and all(text.startswith(begins) for text in client.weighed)


@pytest.mark.parametrize("failures", [[Unanswered("busy")] * 3, [Refused(400, "no logprobs here", "")]])
def test_a_probe_that_fails_for_good_costs_the_probabilities_only(
    failures: list[Exception], checkpoint: Path, tmp_path: Path
) -> None:
    client = ShakyClient(*failures)
    found = answer(client, checkpoint, tmp_path)
    assert found.outcome is Outcome.OK and found.texts and found.label_logprobs is None
    assert found.detail.startswith("no label probabilities: ")
    assert client.questions == 1 and not client.failures
