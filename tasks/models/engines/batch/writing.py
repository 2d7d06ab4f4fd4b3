"""Write a request as the lines of a batch's file: one line, or one per vote if the server gives only one answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tasks.models.engines.batch.book import Line
from tasks.models.engines.batch.provider import ENDPOINT, MOST_BYTES, Provider
from tasks.models.engines.batch.weighing import ALTERNATIVES
from tasks.models.engines.server.chat import build_chat_body
from tasks.models.engines.server.conversation import Conversation
from tasks.models.engines.spec import EngineSpec
from tasks.models.gpu_hours import measure_work
from tasks.models.unanswered import Unanswered
from tasks.records import LabelAnswer, Request


@dataclass(frozen=True)
class LineWriter:
    """Writes lines for one model. `alternatives`: the server reports the likeliest alternatives of each token."""

    spec: EngineSpec
    provider: Provider
    conversation: Conversation
    alternatives: bool

    def write(self, request: Request, custom_ids: Sequence[str]) -> list[Line]:
        """Return the lines that are named by `custom_ids`, or all lines of a request that was never sent.

        Raises Unanswered if the request cannot be sent. Any thread may call this.
        """
        talk, sampling = self.conversation, request.sampling
        drafts = request.drafts
        votes = len(drafts) or (sampling.n if sampling.temperature > 0 else 1)
        together = votes == 1 or (talk.can.several and not drafts)
        ids = custom_ids or ([request.key] if together else [f"{request.key}.{vote}" for vote in range(votes)])
        prepared = talk.prepare(request)
        work = measure_work(prepared.request, talk.patch_size)
        cost = self.spec.charged.cost_of(round(work.prompt_tokens), 0, round(work.answer_tokens / len(ids)))
        fields = dict(self.spec.extra_body)
        if sampling.label_probabilities and self.alternatives and isinstance(request.constraint, LabelAnswer):
            fields |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        lines: list[Line] = []
        for custom_id in ids:
            vote = read_vote(custom_id)
            n = votes if vote is None else 1
            seed = sampling.seed + (vote or 0)
            draft = drafts[vote or 0] if drafts else ""
            body = build_chat_body(prepared.request, talk.model, prepared.media, talk.can, n=n, seed=seed, draft=draft)
            content = _write_line(custom_id, body, fields)
            self._check_size(len(content), self.provider.most_line_bytes)
            lines.append(Line(custom_id, request.key, content, prepared.shortened, round(work.prompt_tokens), cost))
        self._check_size(sum(len(line.content) for line in lines), MOST_BYTES)
        return lines

    def _check_size(self, size: int, most: int) -> None:
        if size > most:
            raise Unanswered(
                f"the question has {size / 1e6:.1f} MB with its images, and {self.provider.host} takes at most "
                f"{most / 1e6:.0f} MB; lower `max_pixels`"
            )


def read_vote(custom_id: str) -> int | None:
    """Return which vote a line asks for; None if it asks for all of them."""
    _, dot, vote = custom_id.partition(".")
    return int(vote) if dot else None


def _write_line(custom_id: str, body: bytes, fields: dict[str, Any]) -> bytes:
    """Return the line; the body may have megabytes of images, so it is neither parsed nor escaped again."""
    more = b"," + orjson.dumps(fields)[1:-1] if fields else b""
    head = orjson.dumps({"custom_id": custom_id, "method": "POST", "url": ENDPOINT})[:-1]
    return b"".join((head, b',"body":', body[:-1], more, b"}}\n"))
