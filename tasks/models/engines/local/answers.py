# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""From a request to the rows the local engine decodes for it, and from decoded rows to the answer's fields."""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import torch

from tasks.models.engines.local.decoding import Draw
from tasks.records import LabelAnswer, Outcome, Request
from tasks.storage.json_lines import escape_json


def draws_for(request: Request) -> list[Draw]:
    """The rows a request needs: n where chance makes them differ, else one."""
    sampling, constraint = request.sampling, request.constraint
    is_label = isinstance(constraint, LabelAnswer)
    max_tokens = 0 if is_label and constraint.between is None else sampling.max_tokens
    count = sampling.n if max_tokens and sampling.temperature else 1
    chances = [Random(f"{request.key}/{sampling.seed}/{number}") for number in range(count)]
    return [Draw(max_tokens, sampling.temperature, sampling.top_p, chance.random, is_label) for chance in chances]


def label_fields(request: Request, draws: Sequence[Draw], scores: Sequence[torch.Tensor]) -> dict[str, Any]:
    constraint, wanted = request.constraint, request.sampling
    assert isinstance(constraint, LabelAnswer)
    logprobs = torch.stack(list(scores))
    if not bool(torch.isfinite(logprobs).all()):
        raise ValueError("the model gives no finite label probabilities; set dtype to bfloat16 or float32")
    texts: list[str] = []
    for draw, own in zip(draws, logprobs, strict=True):
        label = escape_json(constraint.labels[int(own.argmax())])
        reason = "" if constraint.between is None else _inside_json(draw.text) + constraint.between
        texts.append(constraint.opening + reason + label + constraint.closing)
    mean = (logprobs.logsumexp(dim=0) - math.log(len(scores))).tolist()
    return {
        "outcome": Outcome.OK,
        "texts": tuple(texts * (wanted.n // len(texts))),
        "label_logprobs": dict(zip(constraint.labels, mean, strict=True)) if wanted.label_probabilities else None,
        "detail": f"reason cut at {wanted.max_tokens} tokens" if any(d.cut for d in draws) else "",
    }


def text_fields(request: Request, draws: Sequence[Draw]) -> dict[str, Any]:
    # whole answers first: readers that want one take the first
    texts = [d.text for d in sorted(draws, key=lambda d: (not d.text.strip(), d.cut))]
    whole = any(d.text.strip() and not d.cut for d in draws)
    partial = any(d.text.strip() for d in draws)
    outcome = Outcome.OK if whole else Outcome.TRUNCATED if partial else Outcome.EMPTY
    return {"outcome": outcome, "texts": tuple(texts * (request.sampling.n // len(texts)))}


def _inside_json(reason: str) -> str:
    """The reason as it may stand in a JSON string even if it was cut inside a character or an escape."""
    reason = reason.rstrip("\ufffd")
    dangling = (len(reason) - len(reason.rstrip("\\"))) % 2
    return reason[:-1] if dangling else reason
