"""The loss of students that learn a teacher's probabilities of labels instead of one label.

The answers for an item's labels have a common beginning and diverge at some tokens. There, the target is the share of
the probability of the labels that continue with each token, given the tokens before; everywhere else it is the one
token of the answer. Only the answer of the item's own label is run through the model, so training costs no more than on
one label. All labels' shares of the first such token are learned. Where the answers of two other labels diverge later,
after a token that the own answer does not have, nothing is learned from this item.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Targets = dict[int, dict[int, float]]
"""Maps the number of an answer's token to the probabilities of the tokens that may stand there."""

_IGNORED = -100


def find_targets(own: Sequence[int], answers: Sequence[tuple[Sequence[int], float]]) -> Targets:
    """Return the targets of the tokens of `own` at which the answers of other labels part from it.

    `answers` has each label's tokens and probability. Tokens after which only one answer is left have no targets.
    """
    targets: Targets = {}
    open_answers = [(tokens, p) for tokens, p in answers if p > 0]
    for place, token in enumerate(own):
        shares: dict[int, float] = {}
        for tokens, p in open_answers:
            if place < len(tokens):
                shares[tokens[place]] = shares.get(tokens[place], 0.0) + p
        if len(shares) > 1:
            total = sum(shares.values())
            targets[place] = {other: p / total for other, p in shares.items()}
        open_answers = [(t, p) for t, p in open_answers if place < len(t) and t[place] == token]
    return targets


class SoftCollator:
    """Makes batches as `collate` does, and adds `targets`: those of each row's completion."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]], tokenizer: Any) -> None:
        self._collate, self._tokenizer = collate, tokenizer
        self._known: dict[str, list[int]] = {}

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        shares = [row.pop("shares") for row in rows]
        own = [row["completion"][0]["content"][0]["text"] for row in rows]
        targets = [
            find_targets(self._encode(answer), [(self._encode(other), p) for other, p in share])
            for answer, share in zip(own, shares, strict=True)
        ]
        return {**self._collate(rows), "targets": targets}

    def _encode(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]


def compute_soft_loss(
    model: Any, inputs: Mapping[str, Any], targets: Sequence[Targets], count: Tensor | int | None
) -> Tensor:
    """Return the mean cross entropy of the batch's answers with their targets; `count` is the number to divide by.

    Only the logits before the answers' tokens are computed.
    """
    labels: Tensor = inputs["labels"]
    answered = labels[:, 1:] != _IGNORED
    used = answered.any(dim=0).nonzero().flatten()
    model_inputs = {name: value for name, value in inputs.items() if name != "labels"}
    logits: Tensor = model(**model_inputs, use_cache=False, logits_to_keep=used).logits.float()
    wanted = labels[:, used + 1]
    loss = cross_entropy(logits.transpose(1, 2), wanted, ignore_index=_IGNORED, reduction="sum")
    logps = logits.log_softmax(dim=-1)
    for row, own in enumerate(targets):
        places = (wanted[row] != _IGNORED).nonzero().flatten()
        for number, shares in own.items():
            place = places[number]
            tokens = torch.tensor(list(shares), device=logits.device)
            shared = torch.tensor(list(shares.values()), device=logits.device)
            # what the sum above has of this token gives way to the target's
            loss = loss + logps[row, place, wanted[row, place]] - (shared * logps[row, place, tokens]).sum()
    return loss / (answered.sum() if count is None else count)
