"""Raw answers to predictions: strict first, then a ladder of repairs, never an exception.

What a model wrote is kept raw in the ledger, so a change here costs no generation.
"""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, cast

from tasks.records import Generation, LabelAnswer, Outcome, Prediction, Request

_CLEAR = 0.85
_MARGIN = 0.1
_TRIES = 20
"""Braces tried as the beginning of the answer: a text of nothing but braces must not cost a second."""
_READABLE = frozenset({Outcome.OK, Outcome.TRUNCATED})
_REFUSAL = re.compile(
    r"抱歉|对不起|很遗憾|我(?:无法|不能|没有办法|没法)|^无法|作为一[个名]?.{0,6}(?:AI|人工智能|语言模型)"
    r"|\bI(?:['’]?m| am) (?:sorry|unable|not able)\b|\bI (?:can['’]?t|cannot)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Read:
    """One text, read: `label` is set exactly when the outcome is usable."""

    outcome: Outcome
    label: str | None = None
    reason: str = ""


def parse(request: Request, generation: Generation, *, source: str, model: str) -> Prediction:
    """The label, votes, probabilities and reason of an answer to a label request.

    An outcome that the engine set (BAD_MEDIA, FAILED, …) stays. Raises ValueError for a request that asks for no
    label: that is a defect of the caller, not of the answer.
    """
    constraint = request.constraint
    if not isinstance(constraint, LabelAnswer):
        raise ValueError(f"request {request.key} of {request.sample_id} asks for no label: use parse_reason")
    if generation.outcome not in _READABLE:
        return _prediction(request, source, model, _Read(generation.outcome))
    reads = [_read(text, constraint, cut=generation.outcome is Outcome.TRUNCATED) for text in generation.texts]
    votes: dict[str, int] = {}
    for read in reads:
        if read.label is not None:
            votes[read.label] = votes.get(read.label, 0) + 1
    if not votes:
        return _prediction(request, source, model, reads[0] if reads else _Read(Outcome.EMPTY))
    probabilities = _probabilities(generation, constraint)
    label = _winner(votes, probabilities, constraint.labels)
    supporters = [read for read in reads if read.label == label]
    # without a text for it, the label stands on its probability alone: usable, but not what was written
    best = supporters[0] if supporters else _Read(Outcome.REPAIRED, label)
    return _prediction(request, source, model, best, votes, probabilities)


def parse_reason(request: Request, generation: Generation) -> tuple[Outcome, str]:
    """The reason of an answer, white space tidied: of the JSON's key where one was asked for, else the text itself."""
    if generation.outcome is not Outcome.OK:
        return generation.outcome, ""
    text = next((t for t in generation.texts if t.strip()), "")
    constraint = request.constraint
    if isinstance(constraint, LabelAnswer):
        read = _read(text, constraint, cut=False)
        return read.outcome, read.reason
    reason = _tidy(text)
    if not reason:
        return Outcome.EMPTY, ""
    if _REFUSAL.search(reason[:40]):
        return Outcome.REFUSED, ""
    return Outcome.OK, reason


def _prediction(
    request: Request,
    source: str,
    model: str,
    read: _Read,
    votes: dict[str, int] | None = None,
    probabilities: dict[str, float] | None = None,
) -> Prediction:
    return Prediction(
        sample_id=request.sample_id,
        source=source,
        outcome=read.outcome,
        label=read.label,
        probabilities=probabilities or {},
        votes=votes or {},
        reason=read.reason,
        model=model,
    )


def _probabilities(generation: Generation, constraint: LabelAnswer) -> dict[str, float]:
    logprobs = generation.label_logprobs or {}
    # a server may answer for labels that are not this item's
    return {label: min(1.0, math.exp(min(0.0, logprobs[label]))) for label in constraint.labels if label in logprobs}


def _winner(votes: dict[str, int], probabilities: dict[str, float], labels: Sequence[str]) -> str:
    weights: dict[str, float] = dict(probabilities) or {label: float(count) for label, count in votes.items()}
    return max(labels, key=lambda label: weights.get(label, -1.0))  # max keeps the first of equals


# --- one text ------------------------------------------------------------------------------------------------


def _read(text: str, constraint: LabelAnswer, *, cut: bool) -> _Read:
    """Climb the ladder with one text, each rung more lenient than the one before."""
    if not text.strip():
        return _Read(Outcome.EMPTY)
    whole = _object(text, strict=True)
    if whole is not None and whole.get(constraint.label_key) in constraint.labels:
        return _Read(Outcome.OK, str(whole[constraint.label_key]), _reason(whole, constraint))
    found = _first_object(text) or _by_key(text, constraint)
    named = None if found is None else _value(found, constraint.label_key)
    if found is None or named is None:
        return _without_label(text, constraint, cut=cut or (found is None and "{" in text and "}" not in text))
    label = nearest_label(named, constraint.labels) if isinstance(named, str) else None
    if label is None:
        return _Read(Outcome.UNKNOWN_LABEL)
    return _Read(Outcome.REPAIRED, label, _reason(found, constraint))


def _without_label(text: str, constraint: LabelAnswer, *, cut: bool) -> _Read:
    """A text that names no label under its key: a bare label, a refusal, one that was cut off, or none of these."""
    label = nearest_label(text, constraint.labels)
    if label is not None:
        return _Read(Outcome.REPAIRED, label)
    if _REFUSAL.search(text[:80]):
        return _Read(Outcome.REFUSED)
    return _Read(Outcome.TRUNCATED if cut else Outcome.MALFORMED)


def nearest_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that the text means, where exactly one comes near: equal but for width, spaces and punctuation, or
    at least 0.85 alike with the runner-up 0.1 behind; None otherwise."""
    wanted = _bare(text)
    if not wanted or len(wanted) > 2 * max(len(_bare(label)) for label in labels) + 4:
        return None
    bare = [_bare(label) for label in labels]
    if (count := bare.count(wanted)) > 0:
        return labels[bare.index(wanted)] if count == 1 else None
    scored = sorted(((SequenceMatcher(None, wanted, b).ratio(), i) for i, b in enumerate(bare)), reverse=True)
    best, index = scored[0]
    second = scored[1][0] if len(scored) > 1 else 0.0
    return labels[index] if best >= _CLEAR and best - second >= _MARGIN else None


def _object(text: str, *, strict: bool) -> dict[str, Any] | None:
    try:
        value: object = json.loads(text, strict=strict)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _first_object(text: str) -> dict[str, Any] | None:
    """The first balanced {…} that is a JSON object, read leniently."""
    start = text.find("{")
    for _ in range(_TRIES):
        if start < 0:
            break
        end = _balanced_end(text, start)
        if end is not None:
            found = _object(text[start:end], strict=False) or _object(_straight(text[start:end]), strict=False)
            if found is not None:
                return found
        start = text.find("{", start + 1 if end is None else end)
    return None


def _by_key(text: str, constraint: LabelAnswer) -> dict[str, Any] | None:
    """Label and reason of JSON that a quote inside the reason or a missing brace broke: by the keys around them."""
    key = _quoted(constraint.label_key)
    named = re.findall(key + r"""\s*[:：]\s*["'“]([^"'“”}]*)["'”]""", text)
    if len(set(named)) != 1:
        return None
    found = {constraint.label_key: named[0]}
    if constraint.reason_key is not None:
        pattern = _quoted(constraint.reason_key) + r"""\s*[:：]\s*["'“](.*?)["'”]\s*[,，]\s*""" + key
        if reason := re.search(pattern, text, re.DOTALL):
            found[constraint.reason_key] = reason[1]
    return found


def _quoted(key: str) -> str:
    return rf"""["'“]\s*{re.escape(key)}\s*["'”]"""


def _balanced_end(text: str, start: int) -> int | None:
    depth, quoted, escaped = 0, False, False
    for index in range(start, len(text)):
        char = text[index]
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = quoted
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return index + 1
    return None


def _straight(text: str) -> str:
    """JSON typed with Chinese or single quotes, full-width colons and commas, or a comma too many, set right."""
    text = re.sub(r"[“”]", '"', text)
    if '"' not in text:
        text = text.replace("'", '"')
    text = re.sub(r'"\s*：\s*"', '": "', text)
    text = re.sub(r'"\s*，\s*"', '", "', text)
    return re.sub(r",\s*}", "}", text)


def _value(found: dict[str, Any], key: str) -> object:
    """The value of the key, or of the only key that is the same but for width, spaces and punctuation."""
    if key in found:
        return found[key]
    alike = [value for name, value in found.items() if _bare(name) == _bare(key)]
    return alike[0] if len(alike) == 1 else None


def _reason(found: dict[str, Any], constraint: LabelAnswer) -> str:
    value = None if constraint.reason_key is None else _value(found, constraint.reason_key)
    return _tidy(value) if isinstance(value, str) else ""


def _bare(text: str) -> str:
    """Letters and digits only, NFKC, lower case: what is left when width, spaces and punctuation are no difference."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def _tidy(text: str) -> str:
    # half a surrogate pair, which JSON can spell, fits into no file
    return " ".join(text.encode("utf-8", "ignore").decode().split())
