"""Requests for the local engine, and reference results from plain forward passes of its model."""

import math

import torch
from qwen_vl_utils import process_vision_info

from tasks.media import ImagePart, ImageRef, TextPart
from tasks.models.engines.local.engine import LocalEngine
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import FreeText, Generation, LabelAnswer, Request, Sampling

LABELS = ("订单", "物流", "物流-派送中", "退款", "优惠券A", "优惠券B")
OPENING, BETWEEN, CLOSING = '{"理由": "', '", "所属类别": "', '"}'


def request(key: str, images: list[ImageRef], *, kind: str = "label", text: str = "请看图", **sampling) -> Request:
    """kind: `label`, `reason` (then label) or `text`."""
    with_reason = kind == "reason"
    answer = LabelAnswer(
        labels=LABELS,
        reason_key="理由" if with_reason else None,
        label_key="所属类别",
        opening=OPENING if with_reason else '{"所属类别": "',
        between=BETWEEN if with_reason else None,
        closing=CLOSING,
    )
    return Request(
        key=key,
        sample_id=key,
        purpose="classify",
        prefix="看图并回答。",
        parts=(TextPart(text=text), *(ImagePart(image=i) for i in images)),
        suffix="",
        constraint=FreeText() if kind == "text" else answer,
        sampling=Sampling(**{"max_tokens": 6, "label_probabilities": True, **sampling}),
        max_pixels=12 * 784,
        min_pixels=4 * 784,
    )


def varied(images: list[ImageRef], kind: str, **sampling) -> list[Request]:
    counts = (0, 1, 3, 2, 0, 1)
    texts = ("请看图" * (3 * i + 1) for i in range(6))
    return [
        request(f"{kind}{i}", images[:n], kind=kind, text=t, **sampling)
        for i, (n, t) in enumerate(zip(counts, texts, strict=True))
    ]


def answers(engine: LocalEngine, requests: list[Request]) -> dict[str, Generation]:
    generations = list(engine.generate(requests))
    assert sorted(g.key for g in generations) == sorted(r.key for r in requests)
    return {g.key: g for g in generations}


def inputs_of(engine: LocalEngine, asked: Request, answer: str = ""):
    """Return the processor's tensors for the prompt and the beginning of the answer."""
    limits = {"max_pixels": asked.max_pixels, "min_pixels": asked.min_pixels}
    content = [e | limits if e["type"] == "image" else e for e in make_user_content(asked)]
    messages = [*make_system_turn(asked), {"role": "user", "content": content}]
    prompt = engine._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pictures = process_vision_info(messages, image_patch_size=engine._processor.image_processor.patch_size)[0]
    return engine._processor(text=[prompt + answer], images=pictures, do_resize=False, return_tensors="pt")


def logprobs_after(engine: LocalEngine, inputs, tokens: list[int]) -> torch.Tensor:
    """Return the log-probabilities at each token and after them, by one pass without cache, padding or batch."""
    added = torch.tensor([tokens], dtype=torch.long)
    fillers = {"input_ids": added, "attention_mask": added * 0 + 1, "mm_token_type_ids": added * 0}
    whole = {k: torch.cat([v, fillers[k]], dim=1) if k in fillers else v for k, v in inputs.items()}
    with torch.no_grad():
        return engine._model(**whole).logits[0].log_softmax(-1)[-len(tokens) - 1 :]


def tokenised(engine: LocalEngine, text: str) -> list[int]:
    return engine._processor.tokenizer(text)["input_ids"]


def greedy_reason(engine: LocalEngine, inputs, length: int) -> tuple[list[int], str]:
    """Return the tokens before the closing quote, and the text that shares a token with the quote."""
    tokens: list[int] = []
    while len(tokens) < length:
        following = logprobs_after(engine, inputs, tokens)[-1]
        following[engine._decoder.banned] = -math.inf
        token = int(following.argmax())
        if token in engine._decoder.ends | engine._decoder.quotes:
            return tokens, engine._processor.tokenizer.decode([token], skip_special_tokens=True).split('"')[0]
        tokens.append(token)
    return tokens, ""
