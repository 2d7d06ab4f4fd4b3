"""Compute how likely each of several given answers is after a cached prompt. Label probabilities are based on this."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from tasks.models.engines.local.decoding import Rows

LOGITS_BUDGET = 1 << 27
"""Maximum number of logits (rows × tokens × vocabulary) in memory at a time: half a GiB in float32."""


@dataclass(frozen=True)
class Answers:
    """The tokens of a row's possible answers: their common beginning, and the rest of each answer (never empty)."""

    shared: tuple[int, ...]
    rests: tuple[tuple[int, ...], ...]


def split_answers(answers: Sequence[Sequence[int]]) -> Answers:
    """Split tokenised answers after their common beginning; the rest of each has at least one token."""
    longest = min(len(a) for a in answers) - 1
    shared = 0
    while shared < longest and len({a[shared] for a in answers}) == 1:
        shared += 1
    return Answers(tuple(answers[0][:shared]), tuple(tuple(a[shared:]) for a in answers))


def score_answers(
    model: Any, rows: Rows, answers: Sequence[Answers], *, logits_budget: int = LOGITS_BUDGET
) -> list[Tensor]:
    """Return, for each row, the log-likelihood of the rest of each answer, given the prompt and the common beginning.

    All answers of a row form one block after the cached prompt. In it, each answer attends only to the prompt, the
    common beginning and itself. So the cache is not copied and the prompt is not run again.
    """
    vocabulary = rows.logits.shape[-1]
    per_label = max(len(r) for a in answers for r in a.rests)
    shared = max(len(a.shared) for a in answers)
    tokens_left = logits_budget // (vocabulary * len(answers)) - 1 - shared
    step = max(1, tokens_left // per_label)
    scores: list[list[Tensor]] = [[] for _ in answers]
    for start in range(0, max(len(a.rests) for a in answers), step):
        chunk = [Answers(a.shared, a.rests[start : start + step]) for a in answers]
        for row, values in zip(scores, _score_block(model, rows, chunk), strict=True):
            row.extend(values)
    return [torch.stack(row) for row in scores]


def _score_block(model: Any, rows: Rows, answers: Sequence[Answers]) -> list[list[Tensor]]:
    device = rows.mask.device
    tokens, groups, offsets = zip(*(_lay_out(a) for a in answers), strict=True)
    ids, group = _pad(tokens, 0).to(device), _pad(groups, -1).to(device)
    width = ids.shape[1]
    order = torch.arange(width, device=device)
    sees = (group[:, None, :] == 0) | (group[:, None, :] == group[:, :, None])
    sees &= (order[None, None, :] <= order[None, :, None]) & (group >= 0)[:, None, :]
    past = rows.mask.bool()[:, None, :].expand(-1, width, -1)
    allowed = torch.cat([past, sees], dim=2)[:, None]
    dtype = model.dtype
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill(~allowed, torch.finfo(dtype).min)
    positions = rows.position[:, None] + _pad(offsets, 0).to(device)
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions.expand(3, -1, -1),
        cache=rows.cache,
        use_cache=True,
    )
    rows.cache.crop(-width)
    return [
        _score_rests(a, torch.cat([rows.logits[i : i + 1], out.logits[i].to(device)])) for i, a in enumerate(answers)
    ]


def _lay_out(answers: Answers) -> tuple[list[int], list[int], list[int]]:
    """Return the tokens of the block, the answer of each (0: common beginning), and its position after the prompt."""
    shared = len(answers.shared)
    tokens, groups, offsets = list(answers.shared), [0] * shared, list(range(shared))
    for number, rest in enumerate(answers.rests, start=1):
        tokens += rest
        groups += [number] * len(rest)
        offsets += range(shared, shared + len(rest))
    return tokens, groups, offsets


def _pad(lists: Sequence[Sequence[int]], filler: int) -> Tensor:
    return torch.tensor(list(zip_longest(*lists, fillvalue=filler)), dtype=torch.long).T.contiguous()


def _score_rests(answers: Answers, logits: Tensor) -> list[Tensor]:
    """Return the sum of log-probabilities of each rest; `logits[i]` predicts the i-th token of the block."""
    logps = logits.log_softmax(dim=-1, dtype=torch.float32)
    scores: list[Tensor] = []
    at = len(answers.shared)
    for rest in answers.rests:
        # the first token follows the common beginning, wherever the rest is in the block
        places = torch.tensor([len(answers.shared), *range(at + 1, at + len(rest))], device=logits.device)
        scores.append(logps[places, torch.tensor(rest, device=logits.device)].sum())
        at += len(rest)
    return scores
