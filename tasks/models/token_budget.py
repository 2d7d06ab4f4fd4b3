"""Count the tokens of requests, without decoding images or asking a model, and shorten requests that are too long."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from tasks.media import ImagePart, ImageRef, VideoPart, VideoRef
from tasks.models.image_cache import TooThin, compute_sides
from tasks.models.qwen_vl import FRAMES_PER_PATCH, MERGE, names_times, write_time
from tasks.models.unanswered import TooLong
from tasks.prompts.recordings import LEAST_FRAMES, describe_times, keep_frames, list_pair_times
from tasks.prompts.turns import make_draft_turns, make_system_turn, make_user_content
from tasks.records import Request

_WRAPPER_TOKENS = 24
"""Tokens that the chat template adds to a user turn, including the default system turn."""
CHARS_PER_TOKEN = 1.6
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


def count_video_tokens(video: VideoRef, *, min_pixels: int, max_pixels: int, patch_size: int) -> int:
    """Return the number of tokens of a recording's frames, each of an area within the bounds, and two that frame them.

    It is exact but for Qwen3-VL, whose prompts name the times of the frames too. Raises TooThin as for images.
    """
    bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels, "patch_size": patch_size}
    frame = video.frames[0].model_copy(update={"path": video.path})  # an error names the recording
    return len(video.frames) // FRAMES_PER_PATCH * (count_image_tokens(frame, **bounds) - 2) + 2


def estimate_prompt_tokens(request: Request, patch_size: int) -> int:
    """Return the prompt's approximate number of tokens: exact for images and frames, estimated for text."""
    chars = len(request.system) + len(request.prefix) + len(request.suffix)
    bounds = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels}
    seen = 0
    for part in request.parts:
        with suppress(TooThin):  # its item is dropped without being asked
            if isinstance(part, ImagePart):
                seen += count_image_tokens(part.image, **bounds, patch_size=patch_size)
            elif isinstance(part, VideoPart):
                seen += count_video_tokens(part.video, **request.frame_bounds, patch_size=patch_size)
            else:
                chars += len(part.text)
    return _WRAPPER_TOKENS + seen + round(chars / CHARS_PER_TOKEN)


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

    A prompt is the system and user turn in the processor's chat template, with the generation prompt; those of the
    longest draft follow, if there are any. With `frames_as_images`, each frame of a recording is an image in it. Any
    thread may use a PromptBudget.
    """

    def __init__(self, processor: Any, *, frames_as_images: bool = False) -> None:
        self._processor = processor
        self._frames_as_images = frames_as_images
        self._names_times = names_times(processor)
        self._patch_size: int = processor.image_processor.patch_size
        self._added: int = processor.tokenizer.num_special_tokens_to_add()
        # texts between two images rarely repeat, but the text before the first image is often the same prefix
        self._text_tokens = lru_cache(maxsize=1024)(self._tokenise)

    def count(self, request: Request) -> int:
        """Return the exact number of prompt tokens; raise what `count_image_tokens` raises."""
        # the tokenizer splits at special tokens, so the texts between them can be counted separately
        tokens = map(re.escape, (self._processor.image_token, self._processor.video_token))
        texts = re.split("|".join(tokens), self._render(request))
        placeholders = len(texts) - 1
        text = sum(self._text_tokens(t) for t in texts) + placeholders + self._added
        return text + self._media_tokens(request, request.max_pixels)

    def fit(self, request: Request, limit: int, *, answer: int = 0) -> Fitted:
        """Shorten `request` so that its prompt and an answer of `answer` tokens fit into `limit` tokens.

        First, frames of recordings are left out, evenly, down to 4 of each. Then whole turns between turn 0 and
        `keep_from_turn` are removed with their images, the oldest first. Then all images and frames are shrunk, at most
        down to `min_pixels` or 4 tokens each. No more is removed than needed. Raises TooThin as `count` does, and
        TooLong when nothing more may be removed.
        """
        allowed, limit = limit, limit - answer
        whole = self.count(request)
        if whole <= limit:
            return Fitted(request, whole, "", request)
        fewest = _thin_videos(request, LEAST_FRAMES)
        turns = sorted({p.turn for p in request.parts if 0 < p.turn < request.keep_from_turn})
        fits = partial(self._fits_without, fewest, turns, limit)
        gone = turns[: bisect_left(range(len(turns)), True, key=fits)]
        complete = _drop_turns(request, gone)
        shorter = self._keep_most_frames(complete, limit)
        tokens = self.count(shorter)
        notes = [_describe_frames(complete, shorter)] if shorter != complete else []
        notes += [_describe_drop(request, complete, gone)] if gone else []
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
        turns = [*make_system_turn(request), {"role": "user", "content": self._make_content(request)}]
        turns += make_draft_turns(request, max(request.drafts, key=len, default=""))
        return self._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def _make_content(self, request: Request) -> list[dict[str, str]]:
        return make_user_content(request, frames_as_images=self._frames_as_images)

    def _tokenise(self, text: str) -> int:
        # half the time of calling the tokenizer, which also computes the position of each token in the text
        backend = self._processor.tokenizer.backend_tokenizer
        return len(backend.encode_batch_fast([text], add_special_tokens=False)[0])

    def _media_tokens(self, request: Request, max_pixels: int) -> int:
        """Return the tokens of images and recordings at `max_pixels`, beyond those counted in the text.

        In the text, two tokens frame each image and recording, and one stands for it.
        """
        bounds = {"min_pixels": request.min_pixels, "max_pixels": max_pixels, "patch_size": self._patch_size}
        images = sum(count_image_tokens(image, **bounds) - 3 for image in request.images)
        bounds["max_pixels"] = min(max_pixels, request.frame_bounds["max_pixels"])
        if self._frames_as_images:
            shown = [video.frames for video in request.videos]
            return images + sum(len(frames) * (count_image_tokens(frames[0], **bounds) - 3) for frames in shown)
        videos = sum(count_video_tokens(video, **bounds) - 3 for video in request.videos)
        return images + videos + self._time_tokens(request.videos)

    def _time_tokens(self, videos: Sequence[VideoRef]) -> int:
        """Return the tokens that name the times of frames, and frame each pair of them."""
        if not self._names_times:
            return 0
        times = [time for described in describe_times(videos) for time in list_pair_times(described)]
        return sum(self._text_tokens(write_time(time)) + 2 for time in times)

    def _keep_most_frames(self, request: Request, limit: int) -> Request:
        """Return the request with as many frames of each recording as fit, but at least `LEAST_FRAMES`."""
        most = max((len(video.frames) for video in request.videos), default=0)
        if most <= LEAST_FRAMES:
            return request
        counts = range(LEAST_FRAMES, most + 1, FRAMES_PER_PATCH)
        fitting = bisect_right(counts, limit, key=lambda count: self.count(_thin_videos(request, count)))
        return _thin_videos(request, counts[max(fitting - 1, 0)])

    def _fits_without(self, request: Request, turns: Sequence[int], limit: int, number: int) -> bool:
        return self.count(_drop_turns(request, turns[:number])) <= limit

    def _lower_max_pixels(self, request: Request, excess: int) -> int:
        """Return the highest `max_pixels` that saves `excess` tokens, or the lowest allowed if none does."""
        images = [*request.images, *(video.frames[0] for video in request.videos)]
        token_pixels = (MERGE * self._patch_size) ** 2
        if not images:
            return request.max_pixels
        # below this the thinnest image would have a height of 0
        thinnest = max(max(i.width, i.height) / min(i.width, i.height) for i in images)
        least = math.ceil(max(request.min_pixels / token_pixels, _LEAST_TOKENS, thinnest + 1))
        caps = range(least, max(least, request.max_pixels // token_pixels) + 1)
        affordable = self._media_tokens(request, request.max_pixels) - excess
        fitting = bisect_right(caps, affordable, key=lambda cap: self._media_tokens(request, cap * token_pixels))
        return min(request.max_pixels, caps[max(fitting - 1, 0)] * token_pixels)


def _thin_videos(request: Request, most: int) -> Request:
    if not request.videos:
        return request
    thin = [
        part.model_copy(update={"video": keep_frames(part.video, most)}) if isinstance(part, VideoPart) else part
        for part in request.parts
    ]
    return request.model_copy(update={"parts": tuple(thin)})


def _drop_turns(request: Request, turns: Sequence[int]) -> Request:
    gone = set(turns)
    return request.model_copy(update={"parts": tuple(p for p in request.parts if p.turn not in gone)})


def _describe_frames(request: Request, shorter: Request) -> str:
    before, after = [sum(len(video.frames) for video in r.videos) for r in (request, shorter)]
    return f"kept {after} of {before} frames"


def _describe_drop(request: Request, shorter: Request, gone: Sequence[int]) -> str:
    images = len(request.images) - len(shorter.images)
    turns = f"turn {gone[0]}" if len(gone) == 1 else f"turns {gone[0]} to {gone[-1]}"
    return f"dropped {turns}" + (f" ({images} image{'s' if images > 1 else ''})" if images else "")
