"""One request over HTTP, from prompt to `Generation`: fitted, sent, and its labels weighed."""

import asyncio
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from tasks.models.engines.server.chat import (
    ANSWER_TOKENS,
    Capabilities,
    Probe,
    Reply,
    chat_body,
    image_url,
    probe_body,
    read_reply,
    token_logprobs,
)
from tasks.models.engines.server.client import Client
from tasks.models.engines.server.label_tokens import LabelTokens, label_logprobs, label_tokens
from tasks.models.engines.server.retries import GaveUp, Refused
from tasks.models.image_cache import ImageCache, TooThin
from tasks.models.token_budget import PromptBudget
from tasks.prompts.parsing import parse_reason
from tasks.records import Generation, LabelAnswer, Outcome, Request
from tasks.storage.json_lines import escape_json

_MEDIA = re.compile(r"image|media|multimodal|multi-modal|pixel|PIL", re.IGNORECASE)

_READS = 3
"""Times a request is sent when its answers hold no text, or fewer than asked for."""


@dataclass(frozen=True)
class Prepared:
    """A request that fits, with its images as URLs."""

    request: Request
    images: tuple[bytes, ...]
    shortened: str


class Conversation:
    """Everything needed to answer requests with one model over `client`."""

    def __init__(
        self, client: Client, model: str, can: Capabilities, processor: Any, cache: ImageCache, fingerprint: str
    ) -> None:
        self._client, self._model, self._can = client, model, can
        self._cache, self._fingerprint = cache, fingerprint
        self._budget = None if processor is None else PromptBudget(processor)
        self._tokenizer = None if processor is None else processor.tokenizer
        self._patch: int = 14 if processor is None else processor.image_processor.patch_size
        self._tokens = lru_cache(maxsize=1024)(self._label_tokens)

    def prepare(self, request: Request) -> Prepared | Generation:
        """Fit the prompt and make its images' files; the answer at once where that can't be done. Any thread."""
        limit = self._can.context_length
        if limit is None or self._budget is None or _at_most(request) + _answer_room(request) <= limit:
            return self._with_images(request, "")
        return self._fitted(request, limit, "")

    async def answer(self, prepared: Prepared) -> Generation:
        """The answer, whatever becomes of it; raises EngineError only when the server is gone for good."""
        began = time.monotonic()
        request = prepared.request
        try:
            try:
                reply = await self._replies(prepared)
            except Refused as refused:
                if not refused.too_long:
                    raise
                shorter = await asyncio.to_thread(self._shorter, prepared, refused)
                if isinstance(shorter, Generation):
                    return shorter
                prepared, request = shorter, shorter.request
                reply = await self._replies(prepared)
            logprobs = await self._weigh(prepared, reply) if request.sampling.label_probabilities else None
        except Refused as refused:
            outcome = Outcome.FAILED
            if refused.too_long:
                outcome = Outcome.TOO_LONG
            elif request.images and _MEDIA.search(refused.message):
                outcome = Outcome.BAD_MEDIA
            return self.ended(request, outcome, str(refused), time.monotonic() - began)
        except GaveUp as error:
            return self.ended(request, Outcome.FAILED, str(error), time.monotonic() - began)
        return Generation(
            key=request.key,
            outcome=reply.outcome,
            texts=reply.texts,
            label_logprobs=logprobs,
            tokens_in=reply.tokens_in,
            tokens_cached=reply.tokens_cached,
            tokens_out=reply.tokens_out,
            seconds=time.monotonic() - began,
            engine=self._fingerprint,
            shortened=prepared.shortened,
        )

    def ended(self, request: Request, outcome: Outcome, detail: str, seconds: float = 0.0) -> Generation:
        """An answer that is none."""
        return Generation(
            key=request.key, outcome=outcome, detail=detail[:1000], seconds=seconds, engine=self._fingerprint
        )

    def _fitted(self, request: Request, limit: int, already: str) -> Prepared | Generation:
        """`request` within `limit` tokens, answer included; `already` is what was taken from it before."""
        assert self._budget is not None
        try:
            fit = self._budget.fit(request, limit - _answer_room(request))
        except TooThin as error:
            return self.ended(request, Outcome.BAD_MEDIA, str(error))
        if fit.request is None:
            return self.ended(request, Outcome.TOO_LONG, f"{fit.note}: {limit} with the answer")
        return self._with_images(fit.request, "; ".join(filter(None, (already, fit.note))))

    def _with_images(self, request: Request, shortened: str) -> Prepared | Generation:
        limits = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels, "patch_size": self._patch}
        try:
            files = [self._cache.file(image, **limits) for image in request.images]
            urls = tuple(image_url(file, local=self._can.local_files) for file in files)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow's own errors are among these
            return self.ended(request, Outcome.BAD_MEDIA, f"{type(error).__name__}: {error}")
        return Prepared(request, urls, shortened)

    def _shorter(self, prepared: Prepared, refused: Refused) -> Prepared | Generation:
        """Once: what the server found too long, fitted into the limit that it names."""
        request = prepared.request
        if self._budget is None:
            return self.ended(request, Outcome.TOO_LONG, f"{refused}; set `tokenizer` so that it can be shortened")
        count = self._budget.count(request)
        named = [int(n) for n in re.findall(r"\d{3,}", refused.message) if int(n) < count]
        limit = max(named) if named else int(0.9 * count)
        return self._fitted(request, limit, prepared.shortened)

    async def _replies(self, prepared: Prepared) -> Reply:
        sampling = prepared.request.sampling
        wanted = sampling.n if sampling.temperature > 0 else 1
        if wanted == 1 or self._can.several:
            return await self._reply(prepared, wanted, sampling.seed)
        parts = await asyncio.gather(*(self._reply(prepared, 1, sampling.seed + i) for i in range(wanted)))
        best = min(parts, key=lambda r: (r.outcome is not Outcome.OK, r.outcome is Outcome.EMPTY))
        return Reply(
            tuple(text for part in parts for text in part.texts),
            best.outcome,
            *(
                sum(column)
                for column in zip(*((p.tokens_in, p.tokens_cached, p.tokens_out) for p in parts), strict=True)
            ),
        )

    async def _reply(self, prepared: Prepared, n: int, seed: int) -> Reply:
        body = chat_body(prepared.request, self._model, prepared.images, self._can, n=n, seed=seed)
        reply: Reply | None = None
        for _ in range(_READS):
            reply = read_reply(await self._client.post(body), n)
            # fewer answers than asked for is a server's bad moment: what it can do was found out at the start
            if reply is not None and len(reply.texts) == n:
                return reply
        if reply is None:
            raise GaveUp(f"{_READS} answers without any text")
        return reply

    async def _weigh(self, prepared: Prepared, reply: Reply) -> dict[str, float] | None:
        """Log-probability of each label, averaged over the replies' reasons; None where the server can't say."""
        constraint = prepared.request.constraint
        if not isinstance(constraint, LabelAnswer) or not self._can.token_logprobs:
            return None
        context = constraint.opening if constraint.between is None else constraint.between
        tokens = self._tokens(context, constraint.labels, constraint.closing)
        if tokens is None:
            return None
        stems = [s for s in (_stem(prepared.request, constraint, text) for text in reply.texts) if s is not None]
        known: dict[str, list[float] | None] = {}
        for stem in dict.fromkeys(stems):
            known[stem] = await self._label_logprobs(prepared, tokens, stem, len(constraint.labels))
        rows = [row for stem in stems if (row := known[stem]) is not None]
        if not rows:
            return None
        mean = [_log_mean([row[i] for row in rows]) for i in range(len(constraint.labels))]
        return dict(zip(constraint.labels, mean, strict=True))

    async def _label_logprobs(
        self, prepared: Prepared, tokens: LabelTokens, stem: str, count: int
    ) -> list[float] | None:
        async def ask(text: str, wanted: tuple[int, ...]) -> dict[int, float]:
            body = probe_body(prepared.request, self._model, prepared.images, Probe(text, wanted))
            return token_logprobs(await self._client.post(body))

        return await label_logprobs(tokens, stem, count, ask)

    def _label_tokens(self, context: str, labels: tuple[str, ...], closing: str) -> LabelTokens | None:
        if self._tokenizer is None:
            return None
        return label_tokens(self._tokenizer, context, [escape_json(label) for label in labels], closing)


def _stem(request: Request, constraint: LabelAnswer, text: str) -> str | None:
    """The answer up to its label, as the pack writes it, with the reason of `text`; None if it holds no reason."""
    if constraint.between is None:
        return constraint.opening
    reason = (
        _written_reason(text, constraint)
        or parse_reason(request, Generation(key=request.key, outcome=Outcome.OK, texts=(text,)))[1]
    )
    return constraint.opening + escape_json(reason) + constraint.between if reason else None


def _written_reason(text: str, constraint: LabelAnswer) -> str:
    """The reason of clean JSON to the letter: what the model saw before it chose."""
    try:
        value = orjson.loads(text)[constraint.reason_key]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


def _answer_room(request: Request) -> int:
    return request.sampling.max_tokens + ANSWER_TOKENS


def _at_most(request: Request) -> int:
    """A bound on the prompt's tokens that costs nothing: a token of a byte-level vocabulary is a byte at least."""
    texts = [request.system, request.prefix, request.suffix, *(p.text for p in request.parts if p.type == "text")]
    pixels = sum(min(max(i.width * i.height, request.min_pixels), request.max_pixels) for i in request.images)
    return 64 + sum(len(t.encode()) for t in texts) + pixels // 392 + 8 * len(request.images)


def _log_mean(values: Sequence[float]) -> float:
    top = max(values)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(v - top) for v in values) / len(values))
