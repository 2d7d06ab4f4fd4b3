"""Label probabilities from single tokens: each label's code is the first token in which it differs from the others.

After a begun answer (``…", "label": "``) one forward pass gives the probability of every label's next token; where
several labels share it, one more decides among these. That is the probability with which decoding constrained to the
labels writes each of them, without listing codes in the prompt, which a model would have to be trained for.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_TOKENS = 128
"""vLLM 0.32 reports at most so many chosen tokens a request."""
_NEGLIGIBLE = 1e-4
"""A branch less likely than this is shared out evenly among its labels instead of being asked about."""


@dataclass(frozen=True)
class Branch:
    """A place where labels part: what is written before it, and the labels behind each next token."""

    text: str
    """What has been written so far, from the beginning of the context."""
    labels: dict[int, tuple[int, ...]]
    """Next token -> numbers of the labels that go on with it."""
    branches: "dict[int, Branch]"
    """Next token -> where those labels part, if there are several."""


def label_tokens(tokenizer: Any, context: str, labels: Sequence[str], closing: str) -> Branch | None:
    """Where `labels` part when each is written, with `closing`, after a text that ends with `context`.

    `tokenizer` maps text to ids and back (Hugging Face). None when single tokens can't tell the labels apart: a
    character cut in two, one label the beginning of another with its closing, or too many at one place.
    """
    full = [tuple(_ids(tokenizer, context + label + closing)) for label in labels]
    if len(set(full)) < len(full):
        return None
    own = _ids(tokenizer, context)
    shared = 0
    while shared < len(own) and all(len(f) > shared and f[shared] == own[shared] for f in full):
        shared += 1
    # the context's end may share a token with the labels
    kept = _text(tokenizer, full[0][:shared])
    return _branch(tokenizer, full, range(len(full)), shared, kept) if context.startswith(kept) else None


async def label_logprobs(
    root: Branch,
    before: str,
    count: int,
    ask: Callable[[str, tuple[int, ...]], Awaitable[Mapping[int, float]]],
) -> list[float] | None:
    """Natural-log probability of each of `count` labels after `before` and the context, normalised over them.

    `ask(text, tokens)` returns the log-probability of each token as the next after `text`. None when the server left
    a token out.
    """
    found = [-math.inf] * count
    waiting = [(root, 0.0)]
    while waiting:
        branch, reached = waiting.pop()
        options = tuple(branch.labels)
        logps = [0.0] if len(options) == 1 else _normalised(await ask(before + branch.text, options), options)
        if logps is None:
            return None
        for token, logp in zip(options, logps, strict=True):
            behind, deeper = branch.labels[token], branch.branches.get(token)
            if deeper is not None and reached + logp > math.log(_NEGLIGIBLE):
                waiting.append((deeper, reached + logp))
            else:
                for label in behind:
                    found[label] = reached + logp - math.log(len(behind))
    return found


def _branch(
    tokenizer: Any, full: Sequence[tuple[int, ...]], numbers: Sequence[int], depth: int, kept: str
) -> Branch | None:
    """The place where the labels `numbers`, equal up to `depth`, part next; None where that can't be told by tokens."""
    while len({full[i][depth : depth + 1] for i in numbers}) == 1:
        depth += 1
    groups: dict[int, list[int]] = {}
    for i in numbers:
        if len(full[i]) <= depth:  # it ends where the others go on
            return None
        groups.setdefault(full[i][depth], []).append(i)
    begun = full[numbers[0]][:depth]
    text = _text(tokenizer, begun)
    # the server sees text, not tokens: it must cut what is begun as the whole is cut
    if len(groups) > MOST_TOKENS or not text.startswith(kept) or tuple(_ids(tokenizer, text)) != begun:
        return None
    branches: dict[int, Branch] = {}
    for token, members in groups.items():
        if len(members) > 1:
            deeper = _branch(tokenizer, full, members, depth + 1, kept)
            if deeper is None:
                return None
            branches[token] = deeper
    return Branch(text, {token: tuple(members) for token, members in groups.items()}, branches)


def _normalised(found: Mapping[int, float], tokens: Sequence[int]) -> list[float] | None:
    if any(token not in found or math.isnan(found[token]) for token in tokens):
        return None
    logps = np.maximum([found[token] for token in tokens], -1e4)
    return (logps - np.logaddexp.reduce(logps)).tolist()


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
