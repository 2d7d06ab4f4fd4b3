"""Estimate the GPU time of asking and training before a run, and whether a model fits into a card's memory.

Time is the floating-point operations of a prompt at a usual utilisation, the bytes that writing an answer reads from
memory, and what a server does per request and image. The constants reproduce seven published or measured rates of vLLM
within a factor of two (72B and 7B, 16 and 4 bits, H100 and A100), so an estimate is no better than that.
"""

from contextlib import suppress
from dataclasses import astuple, dataclass
from math import ceil, log2

from tasks.models.image_cache import TooThin
from tasks.models.model_sizes import ModelSize
from tasks.models.qwen_vl import FRAMES_PER_PATCH, MERGE
from tasks.models.token_budget import count_image_tokens, count_video_tokens, estimate_prompt_tokens
from tasks.records import LabelAnswer, Request

_UTILISATION = 0.4
"""Share of a card's operations per second that prompts and training reach."""
_BANDWIDTH_SHARE = 0.6
"""Share of a card's bandwidth that writing answers reaches."""
_SPLIT_SHARE = 0.85
"""What is left of both each time that the number of cards of a model is doubled."""
_REQUEST_SECONDS = 0.35
_MEGAPIXEL_SECONDS = 0.1
"""Per request, and per million pixels of its images: what one server does besides computing, vLLM 0.7.2."""
_USED_MEMORY = 0.92
_WORKSPACE = 3e9
"""Bytes per card that are neither weights nor cache."""
_MOST_AT_ONCE = 256
_LABEL_TOKENS = 12
"""Of a label in JSON."""
_PATCH_PIXELS = 14 * 14


@dataclass(frozen=True)
class Card:
    """A GPU: dense 16-bit operations per second, bytes per second of its memory, bytes of memory."""

    name: str
    operations: float
    bandwidth: float
    memory: float


CARDS = (
    Card("H200", 989e12, 4.8e12, 141e9),
    Card("H100", 989e12, 3.35e12, 80e9),
    Card("A100", 312e12, 2.04e12, 80e9),
    Card("L40S", 362e12, 0.864e12, 48e9),
    Card("4090", 165e12, 1.008e12, 24e9),
)


@dataclass(frozen=True)
class Work:
    """What is asked, summed over requests or items."""

    requests: float = 0
    prompt_tokens: float = 0
    """With the tokens of images and frames."""
    images: float = 0
    """Of a recording, two frames count as one: the vision tower sees them as one picture."""
    patches: float = 0
    answer_tokens: float = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> "Work":
        return Work(*(value * times for value in astuple(self)))


def measure_work(request: Request, patch_size: int) -> Work:
    """Return what answering `request` takes; half of the tokens allowed for it are taken to be used, also to think."""
    bounds = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels, "patch_size": patch_size}
    tokens = 0
    pairs = sum(len(video.frames) // FRAMES_PER_PATCH for video in request.videos)
    with suppress(TooThin):  # its item is dropped without being asked
        tokens += sum(count_image_tokens(image, **bounds) - 2 for image in request.images)
        bounds |= request.frame_bounds
        tokens += sum(count_video_tokens(video, **bounds) - 2 for video in request.videos)
    bare = isinstance(request.constraint, LabelAnswer) and request.constraint.reason_key is None
    answer = _LABEL_TOKENS + (0 if bare else (request.sampling.max_tokens + request.thinking) / 2)
    answers = request.sampling.n if request.sampling.temperature > 0 else 1
    return Work(
        1,
        estimate_prompt_tokens(request, patch_size),
        len(request.images) + pairs,
        MERGE**2 * tokens,
        answers * answer,
    )


def count_cards(size: ModelSize, card: Card, context: int | None = None) -> int:
    """Return the smallest power of two of cards that hold the weights and the cache of one request of `context`."""
    needed = size.weight_bytes + size.cache_bytes * (context or size.context)
    cards = 1
    while cards * (card.memory * _USED_MEMORY - _WORKSPACE) < needed:
        cards *= 2
    return cards


def estimate_asking(size: ModelSize, work: Work, card: Card, cards: int, copies: int = 1) -> float:
    """Return the seconds that `copies` servers, each on `cards` cards that hold the model, need for `work`."""
    if not work.requests:
        return 0.0
    one = work * (1 / work.requests)
    share = _SPLIT_SHARE ** log2(cards)
    operations = card.operations * cards * _UTILISATION * share
    bandwidth = card.bandwidth * cards * _BANDWIDTH_SHARE * share
    # 1. reading the prompt
    seconds = count_operations(size, one, passes=1) / operations
    # 2. writing the answer, together with as many others as the cache holds
    cache = size.cache_bytes * (one.prompt_tokens + one.answer_tokens)
    free = cards * (card.memory * _USED_MEMORY - _WORKSPACE) - size.weight_bytes
    together = min(max(1.0, free / cache), _MOST_AT_ONCE, work.requests)
    step = (size.weight_bytes / together + cache) / bandwidth + 2 * size.active / operations
    seconds += one.answer_tokens * step
    # 3. everything else
    seconds += _REQUEST_SECONDS + _MEGAPIXEL_SECONDS * one.patches * _PATCH_PIXELS / 1e6
    return work.requests * seconds / copies


def estimate_training(size: ModelSize, work: Work, card: Card, *, recompute: bool) -> float:
    """Return the seconds of training a LoRA adapter on `work` on one card, the vision tower frozen.

    Frozen weights take no gradient of their own: a pass forward, one backward, and with `recompute` (gradient
    checkpointing) another one forward.
    """
    return count_operations(size, work, passes=3 if recompute else 2) / (card.operations * _UTILISATION)


def describe_hours(seconds: float) -> str:
    """Return the duration with two digits, e.g. 1.2 h or 340 h; less than 0.1 h in minutes."""
    hours = seconds / 3600
    if hours < 0.1:
        return f"{max(1, ceil(seconds / 60))} min"
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def count_operations(size: ModelSize, work: Work, passes: int) -> float:
    """Return the operations of `passes` passes of the language model over the prompts and one of the vision tower.

    Two operations per weight and token, and those of attention, of which half is masked in the language model.
    """
    requests, images = max(work.requests, 1), max(work.images, 1)
    text = 2 * size.active * work.prompt_tokens
    text += 2 * size.layers * size.attention_width * work.prompt_tokens**2 / requests
    vision = 2 * size.vision * work.patches + 4 * size.vision_attention * work.patches**2 / images
    return passes * text + vision
