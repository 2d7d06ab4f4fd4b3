"""Raw answers to predictions: strict first, then a ladder of repairs, never an exception.

What a model wrote is kept raw in the ledger, so a change here costs no generation.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tasks.prompts.repairs import find_object, laxer, match_label, value_of
from tasks.records import Generation, LabelAnswer, Outcome, Prediction, Request, Rung

ASK_AGAIN = frozenset({Outcome.MALFORMED, Outcome.UNKNOWN_LABEL, Outcome.TRUNCATED, Outcome.EMPTY, Outcome.REFUSED})
"""Outcomes that asking once more with a new seed may cure; the others are of the item or of the engine."""

_READABLE = frozenset({Outcome.OK, Outcome.TRUNCATED})
# What the model says of itself. The item's own people apologise too, and a reason may quote them: so not after a
# quotation mark, a colon or a verb of saying.
_REFUSAL = re.compile(
    r"(?<![“\"‘'「『：:说称示诉问致道很常分])(?:很|非常|十分)?(?:抱歉|对不起|很遗憾)"
    r"|(?<![“\"‘'「『：:说称示诉问])我(?:无法|不能|没有办法|没法)"
    r"|^无法|作为一[个名]?.{0,6}(?:AI|人工智能|语言模型)"
    r"|(?:^|[.,;!?]\s*|\bbut )(?:I(?:['’]?m| am) (?:sorry|unable|not able)\b|I (?:can['’]?t|cannot)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Read:
    """One text, read: `label` is set exactly when the outcome is usable."""

    outcome: Outcome
    label: str | None = None
    reason: str = ""
    rung: Rung = Rung.NONE


def parse(request: Request, generation: Generation, *, source: str, model: str) -> Prediction:
    """The label, votes, probabilities and reason of an answer to a label request.

    An outcome that the engine set (BAD_MEDIA, FAILED, …) stays. Raises ValueError for a request that asks for no
    label: that is a defect of the caller, not of the answer.
    """
    constraint = request.constraint
    if not isinstance(constraint, LabelAnswer):
        raise ValueError(f"request {request.key} of {request.sample_id} asks for no label: use parse_reason")
    named = partial(_prediction, request, source, model, generation.shortened or generation.detail)
    if generation.outcome not in _READABLE:
        return named(_Read(generation.outcome))
    reads = [_read(text, constraint, cut=generation.outcome is Outcome.TRUNCATED) for text in generation.texts]
    votes: dict[str, int] = {}
    for read in reads:
        if read.label is not None:
            votes[read.label] = votes.get(read.label, 0) + 1
    if not votes:
        return named(reads[0] if reads else _Read(Outcome.EMPTY))
    probabilities = _probabilities(generation, constraint)
    label = _winner(votes, probabilities, constraint.labels)
    supporters = [read for read in reads if read.label == label]
    # without a text for it, the label stands on its probability alone: usable, but on no rung
    best = supporters[0] if supporters else _Read(Outcome.REPAIRED, label)
    return named(best, votes, probabilities)


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


def rung_counts(predictions: Iterable[Prediction]) -> dict[str, int]:
    """How many predictions each rung of the ladder gave, strictest first; rungs that gave none are left out."""
    counts = Counter(prediction.rung for prediction in predictions)
    return {rung.value: counts[rung] for rung in Rung if counts[rung]}


def _prediction(
    request: Request,
    source: str,
    model: str,
    detail: str,
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
        rung=read.rung,
        detail=detail,
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
    located = find_object(text, constraint)
    named, key_rung = (None, Rung.NONE) if located is None else value_of(located[0], constraint.label_key)
    if located is None or named is None:
        return _without_label(text, constraint, cut=cut or (located is None and "{" in text and "}" not in text))
    found, rung = located
    match = match_label(named, constraint.labels) if isinstance(named, str) else None
    if match is None:
        return _Read(Outcome.UNKNOWN_LABEL)
    label, label_rung = match
    rung = laxer(rung, laxer(key_rung, label_rung))
    outcome = Outcome.OK if rung is Rung.STRICT else Outcome.REPAIRED
    return _Read(outcome, label, _reason(found, constraint), rung)


def _without_label(text: str, constraint: LabelAnswer, *, cut: bool) -> _Read:
    """A text that names no label under its key: a bare label, a refusal, one that was cut off, or none of these."""
    match = match_label(text, constraint.labels)
    if match is not None:
        return _Read(Outcome.REPAIRED, match[0], rung=Rung.BARE)
    key = re.escape(constraint.reason_key or constraint.label_key)
    # a refusal may stand as the reason in JSON, fenced, cut off or not
    said = re.sub(rf"^[\W_]*(?:json[\W_]*)?(?:{key}[\W_]*)?", "", text)
    if _REFUSAL.search(said[:80]):
        return _Read(Outcome.REFUSED)
    return _Read(Outcome.TRUNCATED if cut else Outcome.MALFORMED)


def _reason(found: dict[str, Any], constraint: LabelAnswer) -> str:
    value = None if constraint.reason_key is None else value_of(found, constraint.reason_key)[0]
    return _tidy(value) if isinstance(value, str) else ""


def _tidy(text: str) -> str:
    # half a surrogate pair, which JSON can spell, fits into no file
    return " ".join(text.encode("utf-8", "ignore").decode().split())
