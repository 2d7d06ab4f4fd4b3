"""Finding a JSON answer in what a model wrote, and the label that it means: each step more lenient than the one before.

Every function says which rung of the ladder (`records.Rung`) it had to climb to.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, cast

from tasks.records import LabelAnswer, Rung

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


def laxer(one: Rung, other: Rung) -> Rung:
    """The one of two rungs that is further from strict."""
    return max(one, other, key=_LADDER.index)


def find_object(text: str, constraint: LabelAnswer) -> tuple[dict[str, Any], Rung] | None:
    """The JSON object of an answer: the whole text, else the first one in it, else one pieced together by its keys."""
    whole = _object(text, strict=True)
    if whole:
        return whole, Rung.STRICT
    return _first_object(text) or _by_key(text, constraint)


def value_of(found: dict[str, Any], key: str) -> tuple[object, Rung]:
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
