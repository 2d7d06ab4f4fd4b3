"""How many tokens a request costs, by arithmetic: no pixel is touched, no model asked. And how to make it cost less."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from tasks.models.image_cache import TooThin, resized_sides
from tasks.models.unanswered import TooLong
from tasks.prompts.turns import system_turn, user_content
from tasks.records import ImagePart, ImageRef, Request

_WRAPPER_TOKENS = 24
"""The chat template's own tokens around one user turn with the default system turn."""
_CHARS_PER_TOKEN = 1.6
"""Chinese text under Qwen2's tokenizer: 1.5 to 1.8 characters a token; an estimate, for `check` only."""
_LEAST_TOKENS = 4
"""An image is never shrunk to fewer: Qwen2-VL's own lower bound."""


def image_tokens(image: ImageRef, *, min_pixels: int, max_pixels: int, patch_size: int = 14) -> int:
    """Exact number of tokens of an image under the given bounds on its area (pixels).

    A square of two patches by two is one token, and two more frame the image. Raises TooThin, naming the
    file, for an image too long for its width.
    """
    width, height = resized_sides(image, min_pixels=min_pixels, max_pixels=max_pixels, patch_size=patch_size)
    return width * height // (2 * patch_size) ** 2 + 2


def estimate_prompt_tokens(request: Request) -> int:
    """About how many tokens the request's prompt has: images exactly (for 14-pixel patches), text by its length."""
    chars = len(request.system) + len(request.prefix) + len(request.suffix)
    images = 0
    for part in request.parts:
        if isinstance(part, ImagePart):
            with suppress(TooThin):  # its item is dropped unasked
                images += image_tokens(part.image, min_pixels=request.min_pixels, max_pixels=request.max_pixels)
        else:
            chars += len(part.text)
    return _WRAPPER_TOKENS + images + round(chars / _CHARS_PER_TOKEN)


@dataclass(frozen=True)
class Fitted:
    """A request that fits into a number of tokens."""

    request: Request
    """The request to ask (the very same where it fits as it is)."""
    tokens: int
    """Exact prompt tokens of `request`."""
    note: str
    """For people: what was taken away; empty where nothing had to be done."""


class PromptBudget:
    """Exact prompt lengths under one processor, and requests shortened to fit.

    The length is that of system and user turn in the processor's chat template, with the generation prompt: text by the
    processor's tokenizer, images by arithmetic. Any thread may ask.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._patch_size: int = processor.image_processor.patch_size
        self._added: int = processor.tokenizer.num_special_tokens_to_add()
        # between two images little is said twice; what stands before the first one often is the whole prefix
        self._text_tokens = lru_cache(maxsize=1024)(self._tokenised)

    def count(self, request: Request) -> int:
        """Exact number of prompt tokens; raises TooThin, naming the file, as `image_tokens` does."""
        image_token: str = self._processor.image_token
        # the tokenizer itself cuts at special tokens, so what stands between two of them counts by itself
        texts = self._rendered(request).split(image_token)
        placeholders = len(texts) - 1
        text = sum(self._text_tokens(t) for t in texts) + placeholders + self._added
        return text - len(request.images) + self._image_tokens(request.images, request, request.max_pixels)

    def fit(self, request: Request, limit: int, *, answer: int = 0) -> Fitted:
        """Shorten `request` until its prompt and an answer of `answer` tokens have at most `limit` tokens together.

        Whole turns go first, the oldest first, text and images together: those after turn 0 and before
        `keep_from_turn`. Then every image is shrunk, down to `min_pixels` or 4 tokens an image. Prefix, suffix and
        what is left of the parts are never cut, and no more goes than needed. Raises TooThin as `count` does, and
        TooLong when nothing more may go.
        """
        allowed, limit = limit, limit - answer
        whole = self.count(request)
        if whole <= limit:
            return Fitted(request, whole, "")
        turns = sorted({p.turn for p in request.parts if 0 < p.turn < request.keep_from_turn})
        fits = partial(self._fits_without, request, turns, limit)
        gone = turns[: bisect_left(range(len(turns)), True, key=fits)]
        shorter = _without(request, gone)
        tokens = self.count(shorter)
        notes = [_dropped(request, shorter, gone)] if gone else []
        if tokens > limit:
            max_pixels = self._lower_max_pixels(shorter, tokens - limit)
            if max_pixels < request.max_pixels:
                notes.append(f"max_pixels {request.max_pixels} → {max_pixels}")
                shorter = shorter.model_copy(update={"max_pixels": max_pixels})
                tokens = self.count(shorter)
        if tokens > limit:
            tried = f"; {tokens} with {', '.join(notes)}" if notes else ""
            with_answer = f": {allowed} with the answer" if answer else ""
            raise TooLong(f"needs {whole} tokens, {limit} are allowed{tried}{with_answer}")
        return Fitted(shorter, tokens, "; ".join(notes))

    def _rendered(self, request: Request) -> str:
        turns = [*system_turn(request), {"role": "user", "content": user_content(request)}]
        return self._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def _tokenised(self, text: str) -> int:
        # half the time of a call of the tokenizer, which also finds out where in the text each token stands
        backend = self._processor.tokenizer.backend_tokenizer
        return len(backend.encode_batch_fast([text], add_special_tokens=False)[0])

    def _image_tokens(self, images: Sequence[ImageRef], request: Request, max_pixels: int) -> int:
        """Tokens of images at another cap than their request's, without the two that frame each: these are text."""
        bounds = {"min_pixels": request.min_pixels, "max_pixels": max_pixels, "patch_size": self._patch_size}
        return sum(image_tokens(image, **bounds) - 2 for image in images)

    def _fits_without(self, request: Request, turns: Sequence[int], limit: int, number: int) -> bool:
        return self.count(_without(request, turns[:number])) <= limit

    def _lower_max_pixels(self, request: Request, excess: int) -> int:
        """The highest cap, in whole tokens' pixels, that saves `excess` tokens; the lowest allowed if none does."""
        images, token_pixels = request.images, (2 * self._patch_size) ** 2
        if not images:
            return request.max_pixels
        # below this the thinnest image would have no height left
        thinnest = max(max(i.width, i.height) / min(i.width, i.height) for i in images)
        least = math.ceil(max(request.min_pixels / token_pixels, _LEAST_TOKENS, thinnest + 1))
        caps = range(least, max(least, request.max_pixels // token_pixels) + 1)
        room = self._image_tokens(images, request, request.max_pixels) - excess
        fitting = bisect_right(caps, room, key=lambda cap: self._image_tokens(images, request, cap * token_pixels))
        return min(request.max_pixels, caps[max(fitting - 1, 0)] * token_pixels)


def _without(request: Request, turns: Sequence[int]) -> Request:
    gone = set(turns)
    return request.model_copy(update={"parts": tuple(p for p in request.parts if p.turn not in gone)})


def _dropped(request: Request, shorter: Request, gone: Sequence[int]) -> str:
    images = len(request.images) - len(shorter.images)
    turns = f"turn {gone[0]}" if len(gone) == 1 else f"turns {gone[0]} to {gone[-1]}"
    return f"dropped {turns}" + (f" ({images} image{'s' if images > 1 else ''})" if images else "")
