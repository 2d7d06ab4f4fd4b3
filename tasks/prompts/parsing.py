"""Parse raw answers into predictions: strictly first, then with more and more lenient repairs.

A bad answer never raises an error. The ledger stores raw answers, so no question is asked again when this file changes.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.media import TextPart
from tasks.packs.label_names import match_label, normalise
from tasks.prompts.json_objects import Piece, find_pieces, quote_key, read_object, rebuild_from_keys
from tasks.prompts.pointing import PointingReason, choose_vote, read_pointing
from tasks.prompts.refusals import is_refusal
from tasks.prompts.thinking import ADVICE, cut_thinking
from tasks.records import Generation, LabelAnswer, Outcome, Prediction, Request, Rung, Vote

MOST_LOGPROB = 1e-3
"""Largest log-probability that is believed. It is above 0 only because of rounding."""

ASK_AGAIN = frozenset(
    {
        Outcome.MALFORMED,
        Outcome.UNKNOWN_LABEL,
        Outcome.TRUNCATED,
        Outcome.ONLY_THINKING,
        Outcome.EMPTY,
        Outcome.REFUSED,
    }
)
"""Outcomes that may change if the question is asked again with a new seed. The others are caused by item or engine."""

_READABLE = frozenset({Outcome.OK, Outcome.TRUNCATED})

_LADDER = tuple(Rung)
_PLACEHOLDER = re.compile(r"[\W_]*|[<＜\[【{(（].*[>＞\]】})）]", re.DOTALL)
_FENCE = re.compile(r"[\s`]*(?:json)?\s*")


@dataclass(frozen=True)
class _Read:
    """The result of reading one text; `label` is set exactly when the outcome is usable."""

    outcome: Outcome
    label: str | None = None
    reason: str = ""
    rung: Rung = Rung.NONE


def parse(request: Request, generation: Generation, *, source: str, model: str) -> Prediction:
    """Return the prediction in an answer to a label request: its label, votes, probabilities and reason.

    An outcome set by the engine (BAD_MEDIA, FAILED, …) is kept. Raises ValueError for a request that does not ask for a
    label, which is a bug in the caller.
    """
    constraint = request.constraint
    if not isinstance(constraint, LabelAnswer):
        raise ValueError(f"request {request.key} of {request.sample_id} does not ask for a label; use parse_reason")
    probabilities = _compute_probabilities(generation, constraint)
    answers: list[Vote] = []

    def predict(read: _Read, votes: Mapping[str, int], reason: PointingReason | None = None) -> Prediction:
        reason = reason or read_pointing(read.reason, request, generation)
        return Prediction(
            sample_id=request.sample_id,
            source=source,
            outcome=read.outcome,
            label=read.label,
            probabilities=probabilities if votes else {},
            votes=dict(votes),
            reason=reason.text,
            boxes=reason.boxes,
            model=model,
            rung=read.rung,
            detail="; ".join(filter(None, (explain_unread(read.outcome, generation), *reason.faults))),
            answers=tuple(answers),
            key=generation.key,
        )

    if generation.outcome not in _READABLE:
        return predict(_Read(generation.outcome), {})
    cut = generation.outcome is Outcome.TRUNCATED
    reads = [_read(text, request, constraint, cut=cut) for text in generation.texts]
    votes = Counter(read.label for read in reads if read.label is not None)
    for read in reads:
        if read.label is not None and read.reason:
            answers.append(Vote(label=read.label, reason=read_pointing(read.reason, request, generation).text))
    if not votes:
        return predict(reads[0] if reads else _Read(Outcome.EMPTY), votes)
    label = _choose_label(votes, probabilities, constraint.labels)
    supporters = [read for read in reads if read.label == label]
    if not supporters:
        # no text names the label, only its probability does: usable, but on no rung
        return predict(_Read(Outcome.REPAIRED, label), votes)
    place, reason = choose_vote([read_pointing(read.reason, request, generation) for read in supporters])
    return predict(supporters[place], votes, reason)


def parse_reason(request: Request, generation: Generation) -> tuple[Outcome, PointingReason]:
    """Return the outcome and the reason of an answer.

    The reason is the value of the reason key if the request asks for a label, or else the whole text.
    """
    none = PointingReason("")
    if has_only_thinking(generation):
        return Outcome.ONLY_THINKING, none
    if generation.outcome is not Outcome.OK:
        return generation.outcome, none
    text = _choose_text(generation)
    constraint = request.constraint
    if isinstance(constraint, LabelAnswer):
        read = _read(text, request, constraint, cut=False)
        return read.outcome, read_pointing(read.reason, request, generation)
    reason = read_pointing(_tidy(cut_thinking(text)), request, generation)
    if not reason.text:
        return Outcome.EMPTY, reason
    if is_refusal(reason.text):
        return Outcome.REFUSED, none
    return Outcome.OK, reason


def explain_unread(outcome: Outcome, generation: Generation) -> str:
    """Return why an answer cannot be read and what to do, or an empty string if the outcome says all."""
    return ADVICE if outcome is Outcome.ONLY_THINKING else generation.shortened or generation.detail


def has_only_thinking(answer: Generation | Prediction) -> bool:
    """Return whether a model answered with its thinking and nothing else."""
    if isinstance(answer, Prediction):
        return answer.outcome is Outcome.ONLY_THINKING
    text = _choose_text(answer)
    return answer.outcome in _READABLE and bool(text) and not cut_thinking(text)


def _choose_text(generation: Generation) -> str:
    return next((text for text in generation.texts if text.strip()), "")


def count_rungs(predictions: Iterable[Prediction]) -> dict[str, int]:
    """Return the number of predictions per rung, the strictest rung first; rungs without predictions are left out."""
    counts = Counter(prediction.rung for prediction in predictions)
    return {rung.value: counts[rung] for rung in Rung if counts[rung]}


def _compute_probabilities(generation: Generation, constraint: LabelAnswer) -> dict[str, float]:
    logprobs = generation.label_logprobs or {}
    if not all(value <= MOST_LOGPROB for value in logprobs.values()):  # nor is NaN a log-probability
        return {}
    # a server may return labels that are not this item's
    return {label: min(1.0, math.exp(logprobs[label])) for label in constraint.labels if label in logprobs}


def _choose_label(votes: Mapping[str, int], probabilities: Mapping[str, float], labels: Sequence[str]) -> str:
    weights = probabilities or votes
    return max(labels, key=lambda label: weights.get(label, -1.0))  # max keeps the first of equals


# --- one text ------------------------------------------------------------------------------------------------


def _read(text: str, request: Request, constraint: LabelAnswer, *, cut: bool) -> _Read:
    """Read one text, with more lenient rungs of the ladder one after the other."""
    if not text.strip():
        return _Read(Outcome.EMPTY)
    if text.strip() not in constraint.labels and read_object(text, strict=True) is None:
        text = cut_thinking(text)
    if not text:
        return _Read(Outcome.ONLY_THINKING)
    located = _find_object(text, request, constraint, cut=cut)
    named, key_rung = (None, Rung.NONE) if located is None else _value_of(located[0], constraint.label_key)
    if located is None or named is None:
        return _read_without_label(text, constraint, cut=cut or (located is None and "{" in text and "}" not in text))
    found, rung = located
    match = match_label(named, constraint.labels) if isinstance(named, str) else None
    if match is None:
        return _Read(Outcome.UNKNOWN_LABEL)
    label, label_rung = match
    rung = _more_lenient(rung, _more_lenient(key_rung, label_rung))
    outcome = Outcome.OK if rung is Rung.STRICT else Outcome.REPAIRED
    return _Read(outcome, label, _reason(found, constraint), rung)


def _read_without_label(text: str, constraint: LabelAnswer, *, cut: bool) -> _Read:
    """Read a text without a label under its key: a bare label, a refusal, a truncated answer, or a malformed one."""
    match = match_label(text, constraint.labels)
    if match is not None:
        return _Read(Outcome.REPAIRED, match[0], rung=Rung.BARE)
    key = re.escape(constraint.reason_key or constraint.label_key)
    # a refusal may be the reason in JSON, fenced or truncated
    beginning = re.sub(rf"^[\W_]*(?:json[\W_]*)?(?:{key}[\W_]*)?", "", text)
    if is_refusal(beginning):
        return _Read(Outcome.REFUSED)
    return _Read(Outcome.TRUNCATED if cut else Outcome.MALFORMED)


def _reason(found: dict[str, Any], constraint: LabelAnswer) -> str:
    value = None if constraint.reason_key is None else _value_of(found, constraint.reason_key)[0]
    return _tidy(cut_thinking(value)) if isinstance(value, str) else ""


def _tidy(text: str) -> str:
    # a lone surrogate, which JSON can express, cannot be written to a file
    return " ".join(text.encode("utf-8", "ignore").decode().split())


# --- find the JSON answer in a text and the label that it names: each step is more lenient than the one before ---


def _more_lenient(one: Rung, other: Rung) -> Rung:
    """Return the more lenient of two rungs."""
    return max(one, other, key=_LADDER.index)


def _find_object(
    text: str, request: Request, constraint: LabelAnswer, *, cut: bool
) -> tuple[dict[str, Any], Rung] | None:
    """Return the JSON object that answers: the whole text, the last one in it, or one rebuilt from its keys.

    Objects copied from the prompt do not count. In a text that was cut, an object in the middle may be a draft.
    """
    whole = read_object(text, strict=True)
    pieces = [Piece(whole, Rung.STRICT, 0, len(text))] if whole else find_pieces(text)
    rest = text[pieces[-1].end :] if pieces else text
    if re.search(quote_key(constraint.label_key) + r"\s*[:：]", rest):
        # the last answer is not a complete object
        return rebuild_from_keys(rest, constraint) if not cut or _FENCE.fullmatch(rest.partition("{")[0]) else None
    answers = [p for p in pieces if _value_of(p.value, constraint.label_key)[1] is not Rung.NONE]
    if cut:
        answers = [p for p in answers if _FENCE.fullmatch(text[: p.start]) or _FENCE.fullmatch(text[p.end :])]
    chosen = _choose_answer(answers, text, request, constraint)
    return None if chosen is None else (chosen.value, chosen.rung)


def _choose_answer(answers: Sequence[Piece], text: str, request: Request, constraint: LabelAnswer) -> Piece | None:
    """Return the last answer that is neither copied from the prompt nor a placeholder such as "<label>"."""
    prompt = _squeeze("".join((request.system, request.prefix, *_list_texts(request), request.suffix)))
    own = [a for a in answers if _squeeze(text[a.start : a.end]) not in prompt]
    real = [a for a in own if not _is_placeholder(_value_of(a.value, constraint.label_key)[0], constraint.labels)]
    if real or own:
        return (real or own)[-1]
    # a label alone may be both the right answer and an example in the prompt
    return answers[-1] if answers and not _reason(answers[-1].value, constraint) else None


def _is_placeholder(value: object, labels: Sequence[str]) -> bool:
    text = str(value)
    return _PLACEHOLDER.fullmatch(text) is not None and match_label(text, labels) is None


def _list_texts(request: Request) -> list[str]:
    return [part.text for part in request.parts if isinstance(part, TextPart)]


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _value_of(found: dict[str, Any], key: str) -> tuple[object, Rung]:
    """Return the value of the key, or of the only key that differs just in width, spaces and punctuation."""
    if key in found:
        return found[key], Rung.STRICT
    alike = [value for name, value in found.items() if normalise(name) == normalise(key)]
    return (alike[0], Rung.NORMALISED) if len(alike) == 1 else (None, Rung.NONE)
