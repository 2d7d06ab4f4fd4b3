"""Counting and fitting prompts by arithmetic, beside the processor itself (issue 3, benchmark 3).

CPU time of one core. The processor gets images that are already decoded; counting touches none. Both read texts that
they have not seen before.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.utils import logging

from tasks.demo.checkpoint import write_checkpoint
from tasks.media import ImagePart, ImageRef, Part, TextPart
from tasks.models.token_budget import Fitted, PromptBudget
from tasks.prompts.turns import make_user_content
from tasks.records import FreeText, Request, Sampling

ITEMS, TIMED, ROUNDS = 1000, 30, 3
COUNT_GOAL, FIT_GOAL = 40, 200
LIMIT = 32_000
PHONE = (1080, 2340)
MIN_PIXELS, MAX_PIXELS = 56 * 56, 1280 * 784
WORDS = ("用户", "客服", "订单", "物流", "退款", "请问", "什么时候", "可以", "收到", "优惠券", "您好", "order", "2340")
PREFIX = "".join(f"{n}. 标签{n}：用户的意图是第{n}种，见截图与对话。\n" for n in range(46))

rng = random.Random(0)


def said(words: int) -> str:
    return "".join(rng.choice(WORDS) for _ in range(words)) + "\n"


def asked(parts: list[Part], max_pixels: int = MAX_PIXELS, keep_from_turn: int = 0) -> Request:
    return Request(
        key="k",
        sample_id="s",
        purpose="classify",
        prefix=PREFIX,
        parts=tuple(parts),
        suffix="回答：",
        constraint=FreeText(),
        sampling=Sampling(),
        max_pixels=max_pixels,
        min_pixels=MIN_PIXELS,
        keep_from_turn=keep_from_turn,
    )


def picture(width: int, height: int, turn: int = 0) -> ImagePart:
    return ImagePart(image=ImageRef(path="/a.png", sha256="a", width=width, height=height), turn=turn)


def any_item() -> Request:
    """Small images, so that a thousand take a minute; any mix of text and images."""
    parts: list[Part] = []
    for _ in range(rng.randint(0, 6)):
        if rng.random() < 0.5:
            parts.append(picture(rng.randint(30, 500), rng.randint(30, 500)))
        else:
            parts.append(TextPart(text=said(rng.randint(0, 40))))
    return asked(parts, max_pixels=rng.randint(60, 300) * 784)


def phone_item() -> Request:
    return asked([TextPart(text=said(150)), picture(*PHONE), TextPart(text=said(50)), picture(*PHONE)])


def long_dialogue() -> Request:
    """30 screenshots and 30 texts, about 50,000 tokens."""
    parts: list[Part] = []
    for turn in range(1, 31):
        parts += [TextPart(text=said(250), turn=turn), picture(*PHONE, turn=turn)]
    return asked(parts, keep_from_turn=29)


class Peer:
    """The processor, asked the way its users ask it."""

    def __init__(self, processor) -> None:
        self.processor = processor
        self.blank: dict[tuple[int, int], Image.Image] = {}

    def ids(self, content: list[dict[str, str]], images: list[ImageRef], max_pixels: int) -> list[int]:
        message = {"role": "user", "content": content}
        prompt = self.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        shown = [self.blank.setdefault((i.width, i.height), Image.new("RGB", (i.width, i.height))) for i in images]
        size = {"shortest_edge": MIN_PIXELS, "longest_edge": max_pixels}
        return self.processor(text=[prompt], images=shown or None, images_kwargs={"size": size})["input_ids"][0]

    def count(self, request: Request) -> int:
        return len(self.ids(make_user_content(request), list(request.images), request.max_pixels))

    def fit(self, request: Request, limit: int) -> int:
        """Drop the leading element and run everything again until it fits: what recipes do. Returns the length."""
        content, images = make_user_content(request), list(request.images)
        while len(ids := self.ids(content, images, request.max_pixels)) > limit:
            if content.pop(0)["type"] == "image":
                images.pop(0)
        return len(ids)


def cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def compare(what: str, ours: list[float], theirs: list[float], goal: int) -> None:
    ratio = median(theirs) / median(ours)
    met = "met" if ratio >= goal else "NOT met"
    print(f"{what}: ours {median(ours):.2f} ms, processor {median(theirs):.1f} ms, median of {len(theirs)} interleaved")
    print(f"  {ratio:.0f}× cheaper; goal ≥ {goal}×: {met}")


def aligned(peer: Peer, fitted: Fitted) -> bool:
    """Whether the processor sees as many tokens, images and places for them as the fitted request says."""
    request = fitted.request
    assert request is not None
    ids = peer.ids(make_user_content(request), list(request.images), request.max_pixels)
    tokens = peer.processor.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|image_pad|>"])
    processed = peer.processor.image_processor(
        images=[peer.blank[i.width, i.height] for i in request.images],
        size={"shortest_edge": MIN_PIXELS, "longest_edge": request.max_pixels},
    )
    places = int(processed["image_grid_thw"].prod(-1).sum()) // 4
    return (
        len(ids) == fitted.tokens <= LIMIT
        and ids.count(tokens[0]) == len(request.images)
        and ids.count(tokens[1]) == places
    )


def main() -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        corpus = [PREFIX] * 5 + [said(100) for _ in range(200)]
        processor = AutoProcessor.from_pretrained(write_checkpoint(Path(folder), corpus))
    budget, peer = PromptBudget(processor), Peer(processor)

    equal = sum(budget.count(item) == peer.count(item) for item in (any_item() for _ in range(ITEMS)))
    print(f"Counts equal to the processor's: {equal} of {ITEMS}; goal all: {'met' if equal == ITEMS else 'NOT met'}")

    ours, theirs = [], []
    for item in (phone_item() for _ in range(TIMED)):
        ours.append(cpu(lambda item=item: budget.count(item)))
        theirs.append(cpu(lambda item=item: peer.count(item)))
    compare(f"Counting an item of two phone screenshots ({budget.count(item)} tokens)", ours, theirs, COUNT_GOAL)

    ours, theirs = [], []
    for dialogue in (long_dialogue() for _ in range(ROUNDS)):
        ours.append(cpu(lambda dialogue=dialogue: budget.fit(dialogue, LIMIT)))
        theirs.append(cpu(lambda dialogue=dialogue: peer.fit(dialogue, LIMIT)))
    compare(f"Fitting 30 images and {budget.count(dialogue)} tokens into {LIMIT}", ours, theirs, FIT_GOAL)
    fitted = budget.fit(dialogue, LIMIT)
    print(f"  {fitted.note}; {fitted.tokens} tokens; {'no' if aligned(peer, fitted) else 'A'} placeholder misaligned")


if __name__ == "__main__":
    main()
