"""Raw answers to predictions: strict first, then a ladder of repairs, never an exception.

What a model wrote is kept raw in the ledger, so a change here costs no generation.
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

_CLEAR = 0.85
_MARGIN = 0.1
_TRIES = 20
"""Braces tried as the beginning of the answer: a text of nothing but braces must not cost a second."""
_LADDER = tuple(Rung)
# A text that differs from a label in one of these means something else, however alike the two are: not X, step 2
_TELLING = re.compile(
    r"[不非无没未勿否]|[一二两三四五六七八九十]|\d+|\b(?:not?|non|never|without)\b|^(?:un|in|im|ir|dis|non)(?=[a-z])"
)
_LIST_NUMBER = re.compile(r"^\s*[(（]?\d{1,3}[.．、)）:：]\s*")


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
    probabilities = _probabilities(generation, constraint)

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
    label = _winner(votes, probabilities, constraint.labels)
    supporters = [read for read in reads if read.label == label]
    # without a text for it, the label stands on its probability alone: usable, but on no rung
    return predict(supporters[0] if supporters else _Read(Outcome.REPAIRED, label), votes)


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


def _probabilities(generation: Generation, constraint: LabelAnswer) -> dict[str, float]:
    logprobs = generation.label_logprobs or {}
    # a server may answer for labels that are not this item's
    return {label: min(1.0, math.exp(min(0.0, logprobs[label]))) for label in constraint.labels if label in logprobs}


def _winner(votes: Mapping[str, int], probabilities: Mapping[str, float], labels: Sequence[str]) -> str:
    weights = probabilities or votes
    return max(labels, key=lambda label: weights.get(label, -1.0))  # max keeps the first of equals


# --- one text ------------------------------------------------------------------------------------------------


def _read(text: str, constraint: LabelAnswer, *, cut: bool) -> _Read:
    """Climb the ladder with one text, each rung more lenient than the one before."""
    if not text.strip():
        return _Read(Outcome.EMPTY)
    located = _find_object(text, constraint)
    named, key_rung = (None, Rung.NONE) if located is None else _value_of(located[0], constraint.label_key)
    if located is None or named is None:
        return _without_label(text, constraint, cut=cut or (located is None and "{" in text and "}" not in text))
    found, rung = located
    match = match_label(named, constraint.labels) if isinstance(named, str) else None
    if match is None:
        return _Read(Outcome.UNKNOWN_LABEL)
    label, label_rung = match
    rung = _laxer(rung, _laxer(key_rung, label_rung))
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
    value = None if constraint.reason_key is None else _value_of(found, constraint.reason_key)[0]
    return _tidy(value) if isinstance(value, str) else ""


def _tidy(text: str) -> str:
    # half a surrogate pair, which JSON can spell, fits into no file
    return " ".join(text.encode("utf-8", "ignore").decode().split())


# --- finding the JSON answer in a text, and the label that it means: each step more lenient than the one before --


def _laxer(one: Rung, other: Rung) -> Rung:
    """The one of two rungs that is further from strict."""
    return max(one, other, key=_LADDER.index)


def _find_object(text: str, constraint: LabelAnswer) -> tuple[dict[str, Any], Rung] | None:
    """The JSON object of an answer: the whole text, else the first one in it, else one pieced together by its keys."""
    whole = _object(text, strict=True)
    if whole:
        return whole, Rung.STRICT
    return _first_object(text) or _by_key(text, constraint)


def _value_of(found: dict[str, Any], key: str) -> tuple[object, Rung]:
    """The value of the key, or of the only key that is the same but for width, spaces and punctuation, else None."""
    if key in found:
        return found[key], Rung.STRICT
    alike = [value for name, value in found.items() if _bare(name) == _bare(key)]
    return (alike[0], Rung.NORMALISED) if len(alike) == 1 else (None, Rung.NONE)


def match_label(text: str, labels: Sequence[str]) -> tuple[str, Rung] | None:
    """The label that the text means, where exactly one comes near.

    STRICT: it is a label. NORMALISED: but for width, spaces, punctuation and Unicode form. NEAREST: at least 0.85
    alike with the runner-up 0.1 behind, and no negation or number makes the difference.
    """
    if text in labels:
        return text, Rung.STRICT
    if text.strip() in labels:  # before punctuation goes: C++ and C# are two labels
        return text.strip(), Rung.NORMALISED
    bare = [_bare(label) for label in labels]
    wanted = _bare(text)
    if not wanted or len(wanted) > 2 * max(map(len, bare)) + 4:
        return None
    if (count := bare.count(wanted)) > 0:
        return (labels[bare.index(wanted)], Rung.NORMALISED) if count == 1 else None
    scored = sorted(((SequenceMatcher(None, wanted, b).ratio(), i) for i, b in enumerate(bare)), reverse=True)
    best, index = scored[0]
    second = scored[1][0] if len(scored) > 1 else 0.0
    telling = (_telling(text), _telling(_LIST_NUMBER.sub("", text)))
    near = best >= _CLEAR and best - second >= _MARGIN and _telling(labels[index]) in telling
    return (labels[index], Rung.NEAREST) if near else None


def _object(text: str, *, strict: bool) -> dict[str, Any] | None:
    try:
        value: object = json.loads(text, strict=strict, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # json.loads takes the last of two equal keys without a word, and with it one of two labels
    found: dict[str, Any] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise ValueError(f"two values of {key}")
    return found


def _first_object(text: str) -> tuple[dict[str, Any], Rung] | None:
    """The first balanced {…} that is a JSON object and holds something, strictly or leniently read."""
    start = text.find("{")
    for _ in range(_TRIES):
        if start < 0:
            break
        end = _balanced_end(text, start)
        if end is not None:
            piece = text[start:end]
            if found := _object(piece, strict=True):
                return found, Rung.STRIPPED
            if found := _object(piece, strict=False) or _object(_straight(piece), strict=False):
                return found, Rung.REPAIRED_JSON
        start = text.find("{", start + 1 if end is None else end)
    return None


def _by_key(text: str, constraint: LabelAnswer) -> tuple[dict[str, Any], Rung] | None:
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


def _straight(text: str) -> str:
    """JSON typed with Chinese or single quotes, full-width colons and commas, or a comma too many, set right."""
    text = re.sub(r"[“”]", '"', text)
    if '"' not in text:
        text = text.replace("'", '"')
    text = re.sub(r'"\s*：\s*"', '": "', text)
    text = re.sub(r'"\s*，\s*"', '", "', text)
    return re.sub(r",\s*}", "}", text)


def _bare(text: str) -> str:
    """What is left when width, spaces and punctuation are no difference: NFKC, lower case, letters, digits, marks."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum() or _is_vowel_sign(c))


def _is_vowel_sign(char: str) -> bool:
    # marks that NFKC leaves apart tell words from each other in Thai or Hindi; variation selectors tell nothing
    return unicodedata.category(char) in ("Mn", "Mc") and not "\ufe00" <= char <= "\ufe0f"


def _telling(text: str) -> list[str]:
    return sorted(_TELLING.findall(unicodedata.normalize("NFKC", text).casefold().strip()))
