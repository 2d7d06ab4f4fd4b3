"""Bad instructions into the cutting, and what is left of them into the token budget."""

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tasks.items.cutting import PLACEHOLDER, cut_instruction, parse_list
from tasks.media import ImagePart, ImageRef, Part, TextPart
from tasks.models.image_cache import TooThin
from tasks.models.token_budget import PromptBudget
from tasks.models.unanswered import TooLong
from tasks.packs.pack import load_pack
from tasks.records import FreeText, Request, Sampling
from tests.properties.damage import ODD_TEXTS, damaged_text, sometimes
from tests.properties.result import Result

TASKS = tuple(task for name in ("demo", "captions", "www2025") for task in load_pack(name).tasks.values())
_PIECES = (
    "你是一个网店客服助手，请判断用户的意图。\n", "<用户与客服的对话 START>\n", "<用户与客服的对话 END>\n", "用户: ",
    "客服: ", "\n用户: ",
    "\n客服: ", "\r\n", "\n", PLACEHOLDER, f"Picture 1: {PLACEHOLDER}\n", "这个会漏水吗", "订单123",
    '分类标签:["询问尺码","查询物流"]。',
    "分类标签：支付页、自定页。", "分类标签:[", "请直接只输出分类标签结果，不需要其他多余的话。",
    "以下是可以参考的分类标签为：",
    *ODD_TEXTS,
)  # fmt: skip


def bad_dialogue(rng: Random) -> Result:
    """Cut a made-up instruction: no image's place is lost or made, and no text that was not there appears."""
    text = "".join(rng.choice(_PIECES) for _ in range(rng.randint(0, 25)))
    text = sometimes(rng, 0.3, damaged_text, text)
    task = rng.choice(TASKS)
    found = cut_instruction(text, task)
    result = Result()
    texts = [piece.text for piece in found.pieces if isinstance(piece, TextPart)]
    whole = text.replace("\r\n", "\n")
    result.require(found.count_slots(PLACEHOLDER) <= whole.count(PLACEHOLDER), "more places of images than there were")
    result.require(not any(PLACEHOLDER in text for text in texts), "a place of an image left as text")
    result.require(_in_order("".join(texts), whole), "text that was not there")
    turns = [piece.turn for piece in found.pieces]
    result.require(turns == sorted(turns), "turns out of order")
    result.require(found.offered is None or bool(found.offered), "an empty list of labels")
    result.require(parse_list(text) != (), "an empty list")
    return result.count("cut" if found.pieces else "empty")


def _in_order(part: str, whole: str) -> bool:
    at = iter(whole)
    return all(char in at for char in part)


@cache
def budget(folder: Path) -> PromptBudget:
    """The budget of a tiny processor, made in `folder`."""
    from transformers import AutoProcessor

    from tasks.demo.checkpoint import write_checkpoint

    texts = (f"用户: 在吗\n客服: 在的，订单{i} has arrived." for i in range(200))
    processor: Any = AutoProcessor.from_pretrained(write_checkpoint(folder, texts))
    return PromptBudget(processor)


def bad_prompt(rng: Random, counted: PromptBudget) -> Result:
    """Fit a made-up request: what comes out fits, and is the request without old turns, images perhaps smaller."""
    parts: list[Part] = []
    turns = rng.randint(0, 8)
    for turn in range(turns + 1):
        for _ in range(rng.randint(0, 3)):
            if rng.random() < 0.3:
                sides = rng.choice(((200, 300), (1, 1), (28, 5000), (4000, 3000)))
                shown = ImageRef(path="/a.png", sha256="a", width=sides[0], height=sides[1])
                parts.append(ImagePart(image=shown, turn=turn))
            else:
                word = rng.choice(_PIECES).replace("\ud800", "").replace("\udcff", "")
                parts.append(TextPart(text=word.replace("<|image_pad|>", ""), turn=turn))
    request = Request(
        key="k", sample_id="s", purpose="classify", prefix="看图。\n", parts=tuple(parts), suffix="\n回答：",
        constraint=FreeText(), sampling=Sampling(), max_pixels=rng.choice((784, 40 * 784, 1280 * 784)), min_pixels=784,
        keep_from_turn=rng.randint(0, turns),
    )  # fmt: skip
    limit = rng.choice((0, 1, 60, 200, 1000, 10**6))
    result = Result()
    try:
        fitted = counted.fit(request, limit)
    except TooThin as error:
        return result.require("/a.png" in str(error), f"names no file: {error}").count("too_thin")
    except TooLong as error:
        too_long = counted.count(request) > limit and bool(str(error))
        return result.require(too_long, "refused without need").count("too_long")
    made = fitted.request
    result.require(fitted.tokens <= limit, f"{fitted.tokens} tokens of {limit}")
    kept = request.keep_from_turn
    gone = [part for part in request.parts if part not in made.parts]
    result.require(all(0 < part.turn < kept for part in gone), "a part that may not go is gone")
    result.require(bool(fitted.note) == (made != request), "shortened without a word")
    return result.count("shortened" if fitted.note else "whole")
