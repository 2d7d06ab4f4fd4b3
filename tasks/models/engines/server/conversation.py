"""Answer one request over HTTP: shorten the prompt, send it, and compute the probabilities of the labels."""

import asyncio
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import orjson

from tasks.models.engines.server.chat import (
    ANSWER_TOKENS,
    Capabilities,
    build_chat_body,
    build_probe_body,
    join_replies,
    make_image_url,
    make_video_url,
    read_reply,
    read_token_logprobs,
    write_thoughts,
)
from tasks.models.engines.server.client import Client
from tasks.models.engines.server.label_tokens import Branch, compute_label_logprobs, find_branches
from tasks.models.engines.server.retries import CrashesServer, Refused
from tasks.models.image_cache import ImageCache, list_sides
from tasks.models.token_budget import PromptBudget
from tasks.models.unanswered import TooLong, Unanswered
from tasks.prompts.parsing import parse_reason
from tasks.prompts.thinking import read_thoughts
from tasks.records import Generation, LabelAnswer, Outcome, Request
from tasks.storage.json_lines import escape_json

_READS = 3
"""Attempts at a request whose reply contains no text, or fewer texts than asked for."""
_PROBES = 3
"""Attempts at the label probabilities of a reply; each sends a request as often as the client tries any request."""


@dataclass(frozen=True)
class Prepared:
    """A request that fits into the context length, and the URLs of its images and recordings in order."""

    request: Request
    media: tuple[bytes, ...]
    shortened: str
    """What was removed to make the request fit; empty if nothing was."""
    whole: Request | None = None
    """The request before anything was removed; None if nothing was."""
    reply: Generation | None = None
    """The reply, if only the label probabilities are missing."""
    failed_probes: int = 0


class ProbeFailed(Exception):
    """The request is answered, but asking for the label probabilities failed for now: answer `prepared` again later."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__("the label probabilities are missing")
        self.prepared = prepared


@dataclass
class Conversation:
    """Answers requests with one model through `client`. Its methods raise Unanswered for a request that fails."""

    client: Client
    model: str
    can: Capabilities
    processor: Any
    patch_size: int
    cache: ImageCache

    def __post_init__(self) -> None:
        as_images = not self.can.videos
        self._budget = None if self.processor is None else PromptBudget(self.processor, frames_as_images=as_images)
        self._branches = lru_cache(maxsize=1024)(self._find_branches)

    def prepare(self, request: Request) -> Prepared:
        """Shorten the prompt if needed, and write its pictures to the cache. Any thread may call this."""
        limit = self.can.context_length
        if (
            limit is None
            or self._budget is None
            or _bound_prompt_tokens(request) + _count_answer_tokens(request) <= limit
        ):
            return self._attach_media(request, "")
        return replace(self._fit(request, self._budget, limit, ""), whole=request)

    async def answer(self, prepared: Prepared) -> Generation:
        """Return the answer; raise EngineError when the server does not come back, ProbeFailed to be called again."""
        reply = prepared.reply
        if reply is None:
            try:
                reply = await self._request_replies(prepared)
            except Refused as refused:
                if refused.outcome is not Outcome.TOO_LONG:
                    raise
                prepared = await asyncio.to_thread(self._shorten, prepared, refused)
                reply = await self._request_replies(prepared)
            sides = list_sides(prepared.whole or prepared.request, prepared.request, self.patch_size)
            reply = reply.model_copy(update={"shortened": prepared.shortened, "sides": sides})
        if not prepared.request.sampling.label_probabilities:
            return reply
        try:
            return reply.model_copy(update={"label_logprobs": await self._weigh_labels(prepared, reply)})
        except Unanswered as error:
            final = isinstance(error, Refused | CrashesServer) or prepared.failed_probes + 1 == _PROBES
            if not final:
                raise ProbeFailed(replace(prepared, reply=reply, failed_probes=prepared.failed_probes + 1)) from error
            return reply.model_copy(update={"detail": f"no label probabilities: {error}"[:1000]})

    def _fit(self, request: Request, budget: PromptBudget, limit: int, already: str) -> Prepared:
        """Shorten `request` to `limit` tokens, answer included; `already` says what was removed from it before."""
        fit = budget.fit(request, limit, answer=_count_answer_tokens(request))
        return self._attach_media(fit.request, "; ".join(filter(None, (already, fit.note))))

    def _attach_media(self, request: Request, shortened: str) -> Prepared:
        limits = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels, "patch_size": self.patch_size}
        urls: list[bytes] = []
        for part in request.parts:
            if part.type == "image":
                urls.append(make_image_url(self.cache.file(part.image, **limits), local=self.can.local_files))
            elif part.type == "video":
                frames = self.cache.frame_files(part.video, **request.frame_bounds, patch_size=self.patch_size)
                if self.can.videos:
                    urls.append(make_video_url(frames))
                else:
                    urls += [make_image_url(frame, local=self.can.local_files) for frame in frames]
        return Prepared(request, tuple(urls), shortened)

    def _shorten(self, prepared: Prepared, refused: Refused) -> Prepared:
        """Shorten a request that the server rejected as too long to the limit that its message names."""
        request = prepared.request
        if self._budget is None:
            raise TooLong(f"{refused}; set `tokenizer`, so that long prompts can be shortened")
        count = self._budget.count(request)
        named = [int(n) for n in re.findall(r"\d{3,}", refused.message) if int(n) < count]
        limit = max(named) if named else int(0.9 * count)
        shorter = self._fit(request, self._budget, limit, prepared.shortened)
        return replace(shorter, whole=prepared.whole or request)

    async def _request_replies(self, prepared: Prepared) -> Generation:
        sampling, drafts = prepared.request.sampling, prepared.request.drafts
        wanted = sampling.n if sampling.temperature > 0 else 1
        if not drafts and (wanted == 1 or self.can.several):
            return await self._request_reply(prepared, wanted, sampling.seed)
        drafts = drafts or ("",) * wanted
        votes = (self._request_reply(prepared, 1, sampling.seed + i, draft) for i, draft in enumerate(drafts))
        return join_replies(await asyncio.gather(*votes))

    async def _request_reply(self, prepared: Prepared, n: int, seed: int, draft: str = "") -> Generation:
        body = build_chat_body(prepared.request, self.model, prepared.media, self.can, n=n, seed=seed, draft=draft)
        tokens = _count_answer_tokens(prepared.request)
        reply: Generation | None = None
        for _ in range(_READS):
            reply = read_reply(await self.client.post(body, tokens), prepared.request.key, n)
            # after other prompts than the probe's, the chat template begins the answer in another way
            if reply is not None and prepared.request.videos and not (prepared.request.thinking or draft):
                self._check_prompt_tokens(prepared.request, reply)
            # fewer texts than asked for is a temporary failure: the server proved at the start that it can
            if reply is not None and len(reply.texts) == n:
                break
        if reply is None:
            raise Unanswered(f"{_READS} replies without any text")
        return reply.model_copy(update={"thoughts": (draft,)}) if draft else reply

    def _check_prompt_tokens(self, request: Request, reply: Generation) -> None:
        """Raise Unanswered if the server's model cannot have seen the frames as they were sent."""
        if not self.can.videos or self._budget is None or not reply.tokens_in:
            return
        expected = self._budget.count(request) + self.can.surplus
        if reply.tokens_in != expected:
            raise Unanswered(
                f"the server read {reply.tokens_in} prompt tokens instead of {expected}, so its model saw the frames "
                "at another size or number; start vLLM with the options that `labelstill check` prints"
            )

    async def _weigh_labels(self, prepared: Prepared, reply: Generation) -> dict[str, float] | None:
        """Return each label's log-probability, averaged over the reasons; None if the server does not report them."""
        request, constraint = prepared.request, prepared.request.constraint
        if not isinstance(constraint, LabelAnswer) or not self.can.token_logprobs:
            return None
        context = constraint.opening if constraint.between is None else constraint.between
        root = self._branches(context, constraint.labels, constraint.closing)
        if root is None:
            return None

        async def ask(draft: str, text: str, wanted: tuple[int, ...]) -> dict[int, float]:
            body = build_probe_body(request, self.model, prepared.media, self.can, text, wanted, draft)
            return read_token_logprobs(await self.client.post(body))

        drafts = request.drafts or ("",) * len(reply.texts)
        thoughts = read_thoughts(reply) if request.thinking else ("",) * len(drafts)
        stems = Counter[tuple[str, str]]()
        for draft, thought, text in zip(drafts, thoughts, reply.texts, strict=True):
            if stem := _begin_answer(request, constraint, text):
                stems[draft, write_thoughts(thought) + stem] += 1
        rows: list[list[float]] = []
        for (draft, stem), times in stems.items():
            before = stem.removesuffix(context)
            row = await compute_label_logprobs(root, before, len(constraint.labels), partial(ask, draft))
            rows += [] if row is None else [row] * times
        if not rows:
            return None
        mean = np.logaddexp.reduce(rows, axis=0) - math.log(len(rows))
        return dict(zip(constraint.labels, mean.tolist(), strict=True))

    def _find_branches(self, context: str, labels: tuple[str, ...], closing: str) -> Branch | None:
        if self.processor is None:
            return None
        return find_branches(self.processor.tokenizer, context, [escape_json(label) for label in labels], closing)


def _begin_answer(request: Request, constraint: LabelAnswer, text: str) -> str | None:
    """Return the answer up to its label, as the pack writes it, with the reason in `text`; None if it has no reason."""
    if constraint.between is None:
        return constraint.opening
    reason = (
        _read_exact_reason(text, constraint)
        or parse_reason(request, Generation(key=request.key, outcome=Outcome.OK, texts=(text,)))[1].text
    )
    return constraint.opening + escape_json(reason) + constraint.between if reason else None


def _read_exact_reason(text: str, constraint: LabelAnswer) -> str:
    """Return the reason in `text` unchanged if it is valid JSON: what the model read before it chose a label."""
    try:
        value = orjson.loads(text)[constraint.reason_key]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


def _count_answer_tokens(request: Request) -> int:
    return request.thinking + request.sampling.max_tokens + ANSWER_TOKENS


def _bound_prompt_tokens(request: Request) -> int:
    """Return an upper bound of the prompt's tokens, without tokenising: a token has at least one byte."""
    texts = [request.system, request.prefix, request.suffix, *(p.text for p in request.parts if p.type == "text")]
    texts += [request.suffix, *request.drafts] if request.drafts else []
    pixels = sum(min(max(i.width * i.height, request.min_pixels), request.max_pixels) for i in request.images)
    frames = [frame for video in request.videos for frame in video.frames]
    least, most = request.frame_bounds.values()
    pixels += sum(min(max(i.width * i.height, least), most) for i in frames)
    return 64 + sum(len(t.encode()) for t in texts) + pixels // 392 + 24 * (len(request.images) + len(frames))
