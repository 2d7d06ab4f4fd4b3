"""Compute label probabilities from the most likely alternatives that an API reports for each token of an answer.

Where the label begins, they show which labels the model weighed: a label's probability is that of the tokens that can
start it. Labels that none of them starts share the rest. Unlike with a vLLM server, the values are not exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.models.engines.server.chat import get_path
from tasks.records import LabelAnswer
from tasks.storage.json_lines import escape_json

ALTERNATIVES = 5
"""Alternatives that are asked for. OpenAI reports up to 20, which makes its answers four times as long; DashScope 5."""
_LEAST = 1e-6
"""Probability that all labels together that were not among the alternatives have at least."""


def weigh_labels(choices: Sequence[Any], constraint: LabelAnswer) -> dict[str, float] | None:
    """Return each label's log-probability, averaged over the choices; None if the API reported no alternatives.

    The choices are those of `collecting.py`, which keeps a token's bytes as one character each.
    """
    rows = [row for choice in choices if (row := _weigh_choice(choice, constraint)) is not None]
    if not rows:
        return None
    return {label: math.log(sum(row[label] for row in rows) / len(rows)) for label in constraint.labels}


@dataclass(frozen=True)
class _Token:
    text: str
    begins: int
    """Where it begins, counted from the label's first character; negative if it begins before that."""
    options: dict[str, float]
    """Maps it and each alternative to the probability."""


def _weigh_choice(choice: Any, constraint: LabelAnswer) -> dict[str, float] | None:
    tokens, label_text = _read_label_tokens(get_path(choice, "logprobs", "content"), constraint.label_key)
    endings = {label: f'{escape_json(label)}"'.encode().decode("latin-1") for label in constraint.labels}
    weights = dict.fromkeys(constraint.labels, 0.0)
    possible = list(constraint.labels)
    reached = 1.0
    for token in tokens:
        head = -min(token.begins, 0)  # what of the token stands before the label
        readings = {
            option: _list_matching(label_text[: max(token.begins, 0)] + option[head:], possible, endings)
            for option in token.options
            if option[:head] == token.text[:head]
        }
        for option, matching in readings.items():
            for label in matching if option != token.text else ():
                weights[label] += reached * token.options[option] / len(matching)
        possible = readings[token.text]
        reached *= token.options[token.text]
        if len(possible) <= 1:
            break
    for label in possible if tokens else ():
        weights[label] += reached / len(possible)
    return _fill(weights)


def _read_label_tokens(tokens: Any, label_key: str) -> tuple[list[_Token], str]:
    """Return the tokens from the one in which the label begins, and the text from the label on."""
    if not isinstance(tokens, list):
        return [], ""
    texts = [str(get_path(token, "token") or "") for token in tokens]
    written = "".join(texts)
    begin = _find_label(written, label_key)
    if begin is None:
        return [], ""
    found: list[_Token] = []
    at = 0
    for token, text in zip(tokens, texts, strict=True):
        if at + len(text) > begin:
            options = {str(other): _to_probability(logprob) for other, logprob in get_path(token, "others") or ()}
            options[text] = _to_probability(get_path(token, "logprob"))
            found.append(_Token(text, at - begin, options))
        at += len(text)
    return found, written[begin:]


def _find_label(written: str, label_key: str) -> int | None:
    """Return where the label begins in the JSON that was written; None if it does not."""
    at = written.rfind(f'"{label_key}"'.encode().decode("latin-1"))
    colon = written.find(":", at)
    quote = written.find('"', colon)
    return None if min(at, colon, quote) < 0 else quote + 1


def _list_matching(reads: str, labels: Sequence[str], endings: dict[str, str]) -> list[str]:
    """Return the labels that can still be written after `reads`, or that it has written already."""
    return [label for label in labels if endings[label].startswith(reads) or reads.startswith(endings[label])]


def _fill(weights: dict[str, float]) -> dict[str, float] | None:
    """Let the labels without a weight share what is left, and normalise; None if no label has a weight."""
    total = sum(weights.values())
    if total <= 0:
        return None
    without = [label for label, weight in weights.items() if weight <= 0]
    filled = weights | dict.fromkeys(without, max(1 - total, _LEAST) / max(len(without), 1))
    return {label: weight / sum(filled.values()) for label, weight in filled.items()}


def _to_probability(logprob: Any) -> float:
    return math.exp(min(float(logprob), 0.0)) if isinstance(logprob, int | float) and not math.isnan(logprob) else 0.0
