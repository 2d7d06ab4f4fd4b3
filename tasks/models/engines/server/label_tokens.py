"""Compute label probabilities from the single tokens in which labels differ from each other.

After the beginning of an answer (``…", "label": "``) one forward pass gives the probability of every label's next
token. Where several labels share this token, one more pass decides between them. The result is the probability that
decoding constrained to the labels writes each label. With a code for each label listed in the prompt, a single pass
would always do, but the model would have to be trained for it.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_TOKENS = 128
"""vLLM 0.32 reports the log-probabilities of at most this many given tokens per request."""
_NEGLIGIBLE = 1e-4
"""A branch with a lower probability is not asked about: its labels share its probability equally."""


@dataclass(frozen=True)
class Branch:
    """A position at which labels differ: the text before it, and the labels that continue with each token."""

    text: str
    """The text before the position, from the beginning of the context."""
    labels: dict[int, tuple[int, ...]]
    """Maps the next token to the indices of the labels that continue with it."""
    branches: "dict[int, Branch]"
    """Maps a next token that several labels share to the position where these labels differ."""


def find_branches(tokenizer: Any, context: str, labels: Sequence[str], closing: str) -> Branch | None:
    """Return where `labels` differ when each, followed by `closing`, is written after a text that ends with `context`.

    `tokenizer` is a Hugging Face tokenizer. Returns None when single tokens cannot distinguish the labels: a token ends
    within a character, one label is the beginning of another, or a position has more alternatives than vLLM returns
    log-probabilities for.
    """
    full = [tuple(_tokenise(tokenizer, context + label + closing)) for label in labels]
    if len(set(full)) < len(full):
        return None
    own = _tokenise(tokenizer, context)
    shared = 0
    while shared < len(own) and all(len(f) > shared and f[shared] == own[shared] for f in full):
        shared += 1
    # the end of the context may share a token with the labels
    kept = _detokenise(tokenizer, full[0][:shared])
    return _build_branch(tokenizer, full, range(len(full)), shared, kept) if context.startswith(kept) else None


async def compute_label_logprobs(
    root: Branch,
    before: str,
    count: int,
    ask: Callable[[str, tuple[int, ...]], Awaitable[Mapping[int, float]]],
) -> list[float] | None:
    """Return the natural log-probability, normalised, of each of `count` labels after `before` and the context.

    `ask(text, tokens)` maps each token to the log-probability that it follows `text`. Returns None when a token is
    missing.
    """
    found = [-math.inf] * count
    waiting = [(root, 0.0)]
    while waiting:
        branch, reached = waiting.pop()
        options = tuple(branch.labels)
        logps = [0.0] if len(options) == 1 else _normalise(await ask(before + branch.text, options), options)
        if logps is None:
            return None
        for token, logp in zip(options, logps, strict=True):
            behind = branch.labels[token]
            deeper = branch.branches.get(token)
            if deeper is not None and reached + logp > math.log(_NEGLIGIBLE):
                waiting.append((deeper, reached + logp))
            else:
                for label in behind:
                    found[label] = reached + logp - math.log(len(behind))
    return found


def _build_branch(
    tokenizer: Any, full: Sequence[tuple[int, ...]], numbers: Sequence[int], depth: int, kept: str
) -> Branch | None:
    """Return where the labels `numbers`, equal up to `depth`, differ next; None if single tokens cannot tell."""
    while len({full[i][depth : depth + 1] for i in numbers}) == 1:
        depth += 1
    groups: dict[int, list[int]] = {}
    for i in numbers:
        if len(full[i]) <= depth:  # it is the beginning of another
            return None
        groups.setdefault(full[i][depth], []).append(i)
    begun = full[numbers[0]][:depth]
    text = _detokenise(tokenizer, begun)
    # the server gets text, so the beginning alone must have the same tokens as within the whole
    if len(groups) > MOST_TOKENS or not text.startswith(kept) or tuple(_tokenise(tokenizer, text)) != begun:
        return None
    branches: dict[int, Branch] = {}
    for token, members in groups.items():
        if len(members) > 1:
            deeper = _build_branch(tokenizer, full, members, depth + 1, kept)
            if deeper is None:
                return None
            branches[token] = deeper
    return Branch(text, {token: tuple(members) for token, members in groups.items()}, branches)


def _normalise(found: Mapping[int, float], tokens: Sequence[int]) -> list[float] | None:
    if any(token not in found or math.isnan(found[token]) for token in tokens):
        return None
    logps = np.maximum([found[token] for token in tokens], -1e4)
    return (logps - np.logaddexp.reduce(logps)).tolist()


def _tokenise(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _detokenise(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
