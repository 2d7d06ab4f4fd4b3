"""Count the tokens of requests, without decoding images or asking a model, and shorten requests that are too long."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from tasks.media import ImagePart, ImageRef
from tasks.models.image_cache import TooThin, compute_sides
from tasks.models.qwen_vl import MERGE
from tasks.models.unanswered import TooLong
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import Request

_WRAPPER_TOKENS = 24
"""Tokens that the chat template adds to a user turn, including the default system turn."""
_CHARS_PER_TOKEN = 1.6
"""Chinese text has 1.5 to 1.8 characters per token of Qwen2's tokenizer; an estimate, for `check` only."""
_LEAST_TOKENS = 4
"""Fewest tokens to which an image is shrunk: the lower bound of qwen_vl_utils."""


def count_image_tokens(image: ImageRef, *, min_pixels: int, max_pixels: int, patch_size: int) -> int:
    """Return the exact number of tokens of an image whose area is kept between `min_pixels` and `max_pixels`.

    `MERGE` by `MERGE` patches make one token, and two more tokens frame the image. Raises TooThin, naming the file,
    for an image that is too long and thin.
    """
    width, height = compute_sides(image, min_pixels=min_pixels, max_pixels=max_pixels, patch_size=patch_size)
    return width * height // (MERGE * patch_size) ** 2 + 2


def estimate_prompt_tokens(request: Request, patch_size: int) -> int:
    """Return the prompt's approximate number of tokens: exact for images, estimated for text."""
    chars = len(request.system) + len(request.prefix) + len(request.suffix)
    images = 0
    for part in request.parts:
        if isinstance(part, ImagePart):
            with suppress(TooThin):  # its item is dropped without being asked
                bounds = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels}
                images += count_image_tokens(part.image, **bounds, patch_size=patch_size)
        else:
            chars += len(part.text)
    return _WRAPPER_TOKENS + images + round(chars / _CHARS_PER_TOKEN)


@dataclass(frozen=True)
class Fitted:
    """A request that fits into a given number of tokens."""

    request: Request
    """The request to ask; the original object if nothing was removed."""
    tokens: int
    """Exact number of prompt tokens of `request`."""
    note: str
    """A description of what was removed; empty if nothing was."""
    whole: Request
    """The request before anything was removed."""


class PromptBudget:
    """Counts prompt tokens exactly for one processor, and shortens requests that are too long.

    A prompt is the system and user turn in the processor's chat template, with the generation prompt. Any thread may
    use a PromptBudget.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._patch_size: int = processor.image_processor.patch_size
        self._added: int = processor.tokenizer.num_special_tokens_to_add()
        # texts between two images rarely repeat, but the text before the first image is often the same prefix
        self._text_tokens = lru_cache(maxsize=1024)(self._tokenise)

    def count(self, request: Request) -> int:
        """Return the exact number of prompt tokens; raise what `count_image_tokens` raises."""
        image_token: str = self._processor.image_token
        # the tokenizer splits at special tokens, so the texts between them can be counted separately
        texts = self._render(request).split(image_token)
        placeholders = len(texts) - 1
        text = sum(self._text_tokens(t) for t in texts) + placeholders + self._added
        return text - len(request.images) + self._image_tokens(request.images, request, request.max_pixels)

    def fit(self, request: Request, limit: int, *, answer: int = 0) -> Fitted:
        """Shorten `request` so that its prompt and an answer of `answer` tokens fit into `limit` tokens.

        First, whole turns between turn 0 and `keep_from_turn` are removed with their images, the oldest first. Then all
        images are shrunk, at most down to `min_pixels` or 4 tokens each. No more is removed than needed. Raises TooThin
        as `count` does, and TooLong when nothing more may be removed.
        """
        allowed, limit = limit, limit - answer
        whole = self.count(request)
        if whole <= limit:
            return Fitted(request, whole, "", request)
        turns = sorted({p.turn for p in request.parts if 0 < p.turn < request.keep_from_turn})
        fits = partial(self._fits_without, request, turns, limit)
        gone = turns[: bisect_left(range(len(turns)), True, key=fits)]
        shorter = _drop_turns(request, gone)
        tokens = self.count(shorter)
        notes = [_describe_drop(request, shorter, gone)] if gone else []
        if tokens > limit:
            max_pixels = self._lower_max_pixels(shorter, tokens - limit)
            if max_pixels < request.max_pixels:
                notes.append(f"max_pixels {request.max_pixels} → {max_pixels}")
                shorter = shorter.model_copy(update={"max_pixels": max_pixels})
                tokens = self.count(shorter)
        if tokens > limit:
            with_answer = f" ({allowed} including the answer)" if answer else ""
            tried = f"; still {tokens} after: {', '.join(notes)}" if notes else ""
            raise TooLong(f"needs {whole} tokens, {limit} are allowed{with_answer}{tried}")
        return Fitted(shorter, tokens, "; ".join(notes), request)

    def _render(self, request: Request) -> str:
        turns = [*make_system_turn(request), {"role": "user", "content": make_user_content(request)}]
        return self._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def _tokenise(self, text: str) -> int:
        # half the time of calling the tokenizer, which also computes the position of each token in the text
        backend = self._processor.tokenizer.backend_tokenizer
        return len(backend.encode_batch_fast([text], add_special_tokens=False)[0])

    def _image_tokens(self, images: Sequence[ImageRef], request: Request, max_pixels: int) -> int:
        """Return the tokens of images at `max_pixels`, without the two that frame each, which are counted as text."""
        bounds = {"min_pixels": request.min_pixels, "max_pixels": max_pixels, "patch_size": self._patch_size}
        return sum(count_image_tokens(image, **bounds) - 2 for image in images)

    def _fits_without(self, request: Request, turns: Sequence[int], limit: int, number: int) -> bool:
        return self.count(_drop_turns(request, turns[:number])) <= limit

    def _lower_max_pixels(self, request: Request, excess: int) -> int:
        """Return the highest `max_pixels` that saves `excess` tokens, or the lowest allowed if none does."""
        images = request.images
        token_pixels = (MERGE * self._patch_size) ** 2
        if not images:
            return request.max_pixels
        # below this the thinnest image would have a height of 0
        thinnest = max(max(i.width, i.height) / min(i.width, i.height) for i in images)
        least = math.ceil(max(request.min_pixels / token_pixels, _LEAST_TOKENS, thinnest + 1))
        caps = range(least, max(least, request.max_pixels // token_pixels) + 1)
        affordable = self._image_tokens(images, request, request.max_pixels) - excess
        fitting = bisect_right(
            caps, affordable, key=lambda cap: self._image_tokens(images, request, cap * token_pixels)
        )
        return min(request.max_pixels, caps[max(fitting - 1, 0)] * token_pixels)


def _drop_turns(request: Request, turns: Sequence[int]) -> Request:
    gone = set(turns)
    return request.model_copy(update={"parts": tuple(p for p in request.parts if p.turn not in gone)})


def _describe_drop(request: Request, shorter: Request, gone: Sequence[int]) -> str:
    images = len(request.images) - len(shorter.images)
    turns = f"turn {gone[0]}" if len(gone) == 1 else f"turns {gone[0]} to {gone[-1]}"
    return f"dropped {turns}" + (f" ({images} image{'s' if images > 1 else ''})" if images else "")
