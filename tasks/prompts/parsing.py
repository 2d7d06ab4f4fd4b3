"""Parse raw answers into predictions: strictly first, then with more and more lenient repairs.

A bad answer never raises an error. The ledger stores raw answers, so no question is asked again when this file changes.
"""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, cast

from tasks.records import Generation, LabelAnswer, Outcome, Prediction, Request, Rung

MOST_LOGPROB = 1e-3
"""Largest log-probability that is believed. It is above 0 only because of rounding."""

ASK_AGAIN = frozenset({Outcome.MALFORMED, Outcome.UNKNOWN_LABEL, Outcome.TRUNCATED, Outcome.EMPTY, Outcome.REFUSED})
"""Outcomes that may change if the question is asked again with a new seed. The others are caused by item or engine."""

_READABLE = frozenset({Outcome.OK, Outcome.TRUNCATED})
# Refusals by the model itself. People in a dialogue apologise too, and a reason may quote them, so a refusal after a
# quotation mark, a colon or a verb of saying does not count.
_REFUSAL = re.compile(
    r"(?<![“\"‘'「『：:说称示诉问致道很常分])(?:很|非常|十分)?(?:抱歉|对不起|很遗憾)"
    r"|(?<![“\"‘'「『：:说称示诉问])我(?:无法|不能|没有办法|没法)"
    r"|^无法|作为一[个名]?.{0,6}(?:AI|人工智能|语言模型)"
    r"|(?:^|[.,;!?]\s*|\bbut )(?:I(?:['’]?m| am) (?:sorry|unable|not able)\b|I (?:can['’]?t|cannot)\b)",
    re.IGNORECASE,
)

_CLEAR = 0.85
_MARGIN = 0.1
_TRIES = 20
"""Maximum number of braces tried as the beginning of the answer: a text full of braces must not take a second."""
_LADDER = tuple(Rung)
# A text that differs from a label in one of these has another meaning, however similar the two are: not X, step 2
_DISTINGUISHING = re.compile(
    r"[不非无没未勿否]|[一二两三四五六七八九十]|\d+|\b(?:not?|non|never|without)\b|^(?:un|in|im|ir|dis|non)(?=[a-z])"
)
_LIST_NUMBER = re.compile(r"^\s*[(（]?\d{1,3}[.．、)）:：]\s*")


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
    label, which is a mistake of the caller.
    """
    constraint = request.constraint
    if not isinstance(constraint, LabelAnswer):
        raise ValueError(f"request {request.key} of {request.sample_id} does not ask for a label; use parse_reason")
    probabilities = _compute_probabilities(generation, constraint)

    def predict(read: _Read, votes: Mapping[str, int]) -> Prediction:
        return Prediction(
            sample_id=request.sample_id,
            source=source,
            outcome=read.outcome,
            label=read.label,
            probabilities=probabilities if votes else {},
            votes=dict(votes),
            reason=read.reason,
            model=model,
            rung=read.rung,
            detail=generation.shortened or generation.detail,
        )

    if generation.outcome not in _READABLE:
        return predict(_Read(generation.outcome), {})
    reads = [_read(text, constraint, cut=generation.outcome is Outcome.TRUNCATED) for text in generation.texts]
    votes = Counter(read.label for read in reads if read.label is not None)
    if not votes:
        return predict(reads[0] if reads else _Read(Outcome.EMPTY), votes)
    label = _choose_label(votes, probabilities, constraint.labels)
    supporters = [read for read in reads if read.label == label]
    # no text names the label, only its probability does: usable, but on no rung
    return predict(supporters[0] if supporters else _Read(Outcome.REPAIRED, label), votes)


def parse_reason(request: Request, generation: Generation) -> tuple[Outcome, str]:
    """Return the outcome and the reason of an answer.

    The reason is the value of the reason key if the request asks for a label, or else the whole text.
    """
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


def _read(text: str, constraint: LabelAnswer, *, cut: bool) -> _Read:
    """Read one text, with more lenient rungs of the ladder one after the other."""
    if not text.strip():
        return _Read(Outcome.EMPTY)
    located = _find_object(text, constraint)
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
    if _REFUSAL.search(beginning[:80]):
        return _Read(Outcome.REFUSED)
    return _Read(Outcome.TRUNCATED if cut else Outcome.MALFORMED)


def _reason(found: dict[str, Any], constraint: LabelAnswer) -> str:
    value = None if constraint.reason_key is None else _value_of(found, constraint.reason_key)[0]
    return _tidy(value) if isinstance(value, str) else ""


def _tidy(text: str) -> str:
    # a lone surrogate, which JSON can express, cannot be written to a file
    return " ".join(text.encode("utf-8", "ignore").decode().split())


# --- find the JSON answer in a text and the label that it names: each step is more lenient than the one before ---


def _more_lenient(one: Rung, other: Rung) -> Rung:
    """Return the more lenient of two rungs."""
    return max(one, other, key=_LADDER.index)


def _find_object(text: str, constraint: LabelAnswer) -> tuple[dict[str, Any], Rung] | None:
    """Return the JSON object of an answer: the whole text, the first object in it, or one rebuilt from its keys."""
    whole = _object(text, strict=True)
    if whole:
        return whole, Rung.STRICT
    return _first_object(text) or _by_key(text, constraint)


def _value_of(found: dict[str, Any], key: str) -> tuple[object, Rung]:
    """Return the value of the key, or of the only key that differs just in width, spaces and punctuation."""
    if key in found:
        return found[key], Rung.STRICT
    alike = [value for name, value in found.items() if _normalise(name) == _normalise(key)]
    return (alike[0], Rung.NORMALISED) if len(alike) == 1 else (None, Rung.NONE)


def match_label(text: str, labels: Sequence[str]) -> tuple[str, Rung] | None:
    """Return the label that the text names, and the rung that found it; None unless exactly one label is close.

    STRICT: the text is a label. NORMALISED: it differs in width, spaces, punctuation or Unicode form. NEAREST: its
    similarity is at least 0.85 and exceeds that of the next label by 0.1, and no negation or number differs.
    """
    if text in labels:
        return text, Rung.STRICT
    if text.strip() in labels:  # before punctuation is removed: C++ and C# are two labels
        return text.strip(), Rung.NORMALISED
    bare = [_normalise(label) for label in labels]
    wanted = _normalise(text)
    if not wanted or len(wanted) > 2 * max(map(len, bare)) + 4:
        return None
    if (count := bare.count(wanted)) > 0:
        return (labels[bare.index(wanted)], Rung.NORMALISED) if count == 1 else None
    scored = sorted(((SequenceMatcher(None, wanted, b).ratio(), i) for i, b in enumerate(bare)), reverse=True)
    best, index = scored[0]
    second = scored[1][0] if len(scored) > 1 else 0.0
    distinguishing = (_find_distinguishing_words(text), _find_distinguishing_words(_LIST_NUMBER.sub("", text)))
    near = best >= _CLEAR and best - second >= _MARGIN and _find_distinguishing_words(labels[index]) in distinguishing
    return (labels[index], Rung.NEAREST) if near else None


def _object(text: str, *, strict: bool) -> dict[str, Any] | None:
    try:
        value: object = json.loads(text, strict=strict, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # json.loads silently keeps the last of two equal keys, and so one of two labels
    found: dict[str, Any] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise ValueError(f"two values of {key}")
    return found


def _first_object(text: str) -> tuple[dict[str, Any], Rung] | None:
    """Return the first balanced {…} that is a non-empty JSON object, read strictly or leniently."""
    start = text.find("{")
    for _ in range(_TRIES):
        if start < 0:
            break
        end = _balanced_end(text, start)
        if end is not None:
            piece = text[start:end]
            if found := _object(piece, strict=True):
                return found, Rung.STRIPPED
            if found := _object(piece, strict=False) or _object(_correct_punctuation(piece), strict=False):
                return found, Rung.REPAIRED_JSON
        start = text.find("{", start + 1 if end is None else end)
    return None


def _by_key(text: str, constraint: LabelAnswer) -> tuple[dict[str, Any], Rung] | None:
    """Return label and reason found by their keys in JSON with an unescaped quote or a missing brace."""
    key = _quoted(constraint.label_key)
    named = re.findall(key + r"""\s*[:：]\s*["'“]([^"'“”}]*)["'”]""", text)
    if len(set(named)) != 1:
        return None
    found = {constraint.label_key: named[0]}
    if constraint.reason_key is not None:
        pattern = _quoted(constraint.reason_key) + r"""\s*[:：]\s*["'“](.*?)["'”]\s*[,，]\s*""" + key
        if reason := re.search(pattern, text, re.DOTALL):
            found[constraint.reason_key] = reason[1]
    return found, Rung.REPAIRED_JSON


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


def _correct_punctuation(text: str) -> str:
    """Return JSON with ASCII double quotes, colons and commas, and without a trailing comma."""
    text = re.sub(r"[“”]", '"', text)
    if '"' not in text:
        text = text.replace("'", '"')
    text = re.sub(r'"\s*：\s*"', '": "', text)
    text = re.sub(r'"\s*，\s*"', '", "', text)
    return re.sub(r",\s*}", "}", text)


def _normalise(text: str) -> str:
    """Return letters, digits and vowel signs in NFKC and lower case, so that width and punctuation do not matter."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum() or _is_vowel_sign(c))


def _is_vowel_sign(char: str) -> bool:
    # combining marks that NFKC keeps distinguish words in Thai or Hindi; variation selectors do not
    return unicodedata.category(char) in ("Mn", "Mc") and not "\ufe00" <= char <= "\ufe0f"


def _find_distinguishing_words(text: str) -> list[str]:
    return sorted(_DISTINGUISHING.findall(unicodedata.normalize("NFKC", text).casefold().strip()))
