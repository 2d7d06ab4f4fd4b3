"""One request over HTTP, from prompt to `Generation`: fitted, sent, and its labels weighed."""

import asyncio
import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from tasks.models.engines.server.chat import (
    ANSWER_TOKENS,
    TOKEN_COUNTS,
    Capabilities,
    chat_body,
    image_url,
    probe_body,
    read_reply,
    token_logprobs,
)
from tasks.models.engines.server.client import Client
from tasks.models.engines.server.label_tokens import Branch, label_logprobs, label_tokens
from tasks.models.engines.server.retries import Refused
from tasks.models.image_cache import ImageCache
from tasks.models.token_budget import PromptBudget
from tasks.models.unanswered import BadMedia, TooLong, Unanswered
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
    """Everything needed to answer requests with one model over `client`. Its methods raise Unanswered."""

    def __init__(self, client: Client, model: str, can: Capabilities, processor: Any, cache: ImageCache) -> None:
        self._client, self._model, self._can = client, model, can
        self._cache = cache
        self._budget = None if processor is None else PromptBudget(processor)
        self._tokenizer = None if processor is None else processor.tokenizer
        self._patch: int = 14 if processor is None else processor.image_processor.patch_size
        self._branches = lru_cache(maxsize=1024)(self._label_branches)

    def prepare(self, request: Request) -> Prepared:
        """Fit the prompt and make its images' files. Any thread."""
        limit = self._can.context_length
        if limit is None or self._budget is None or _at_most(request) + _answer_room(request) <= limit:
            return self._with_images(request, "")
        return self._fitted(request, self._budget, limit, "")

    async def answer(self, prepared: Prepared) -> Generation:
        """Return the answer; raises EngineError when the server is gone for good."""
        try:
            try:
                reply = await self._replies(prepared)
            except Refused as refused:
                if refused.outcome is not Outcome.TOO_LONG:
                    raise
                prepared = await asyncio.to_thread(self._shorter, prepared, refused)
                reply = await self._replies(prepared)
            wanted = prepared.request.sampling.label_probabilities
            logprobs = await self._weigh(prepared, reply) if wanted else None
        except Refused as refused:
            about_images = prepared.request.images and _MEDIA.search(refused.message)
            if about_images and refused.outcome is not Outcome.TOO_LONG:
                raise BadMedia(str(refused)) from refused
            raise
        return reply.model_copy(update={"label_logprobs": logprobs, "shortened": prepared.shortened})

    def _fitted(self, request: Request, budget: PromptBudget, limit: int, already: str) -> Prepared:
        """`request` within `limit` tokens, answer included; `already` is what was taken from it before."""
        fit = budget.fit(request, limit, answer=_answer_room(request))
        return self._with_images(fit.request, "; ".join(filter(None, (already, fit.note))))

    def _with_images(self, request: Request, shortened: str) -> Prepared:
        limits = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels, "patch_size": self._patch}
        try:
            files = [self._cache.file(image, **limits) for image in request.images]
            urls = tuple(image_url(file, local=self._can.local_files) for file in files)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow's own errors are among these
            raise BadMedia(f"{type(error).__name__}: {error}") from error
        return Prepared(request, urls, shortened)

    def _shorter(self, prepared: Prepared, refused: Refused) -> Prepared:
        """Once: what the server found too long, fitted into the limit that it names."""
        request = prepared.request
        if self._budget is None:
            raise TooLong(f"{refused}; set `tokenizer` so that it can be shortened")
        count = self._budget.count(request)
        named = [int(n) for n in re.findall(r"\d{3,}", refused.message) if int(n) < count]
        limit = max(named) if named else int(0.9 * count)
        return self._fitted(request, self._budget, limit, prepared.shortened)

    async def _replies(self, prepared: Prepared) -> Generation:
        sampling = prepared.request.sampling
        wanted = sampling.n if sampling.temperature > 0 else 1
        if wanted == 1 or self._can.several:
            return await self._reply(prepared, wanted, sampling.seed)
        parts = await asyncio.gather(*(self._reply(prepared, 1, sampling.seed + i) for i in range(wanted)))
        best = min(parts, key=lambda r: (r.outcome is not Outcome.OK, r.outcome is Outcome.EMPTY))
        counts = {name: sum(getattr(part, name) for part in parts) for name in TOKEN_COUNTS}
        return best.model_copy(update={"texts": tuple(text for part in parts for text in part.texts), **counts})

    async def _reply(self, prepared: Prepared, n: int, seed: int) -> Generation:
        body = chat_body(prepared.request, self._model, prepared.images, self._can, n=n, seed=seed)
        reply: Generation | None = None
        for _ in range(_READS):
            reply = read_reply(await self._client.post(body), prepared.request.key, n)
            # fewer answers than asked for is a server's bad moment: what it can do was found out at the start
            if reply is not None and len(reply.texts) == n:
                return reply
        if reply is None:
            raise Unanswered(f"{_READS} answers without any text")
        return reply

    async def _weigh(self, prepared: Prepared, reply: Generation) -> dict[str, float] | None:
        """Log-probability of each label, averaged over the replies' reasons; None where the server can't say."""
        request, constraint = prepared.request, prepared.request.constraint
        if not isinstance(constraint, LabelAnswer) or not self._can.token_logprobs:
            return None
        context = constraint.opening if constraint.between is None else constraint.between
        root = self._branches(context, constraint.labels, constraint.closing)
        if root is None:
            return None

        async def ask(text: str, wanted: tuple[int, ...]) -> dict[int, float]:
            body = probe_body(request, self._model, prepared.images, text, wanted)
            return token_logprobs(await self._client.post(body))

        rows: list[list[float]] = []
        for stem, times in Counter(_stem(request, constraint, text) for text in reply.texts).items():
            if stem is None:
                continue
            row = await label_logprobs(root, stem.removesuffix(context), len(constraint.labels), ask)
            rows += [] if row is None else [row] * times
        if not rows:
            return None
        mean = np.logaddexp.reduce(rows, axis=0) - math.log(len(rows))
        return dict(zip(constraint.labels, mean.tolist(), strict=True))

    def _label_branches(self, context: str, labels: tuple[str, ...], closing: str) -> Branch | None:
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
