"""Find JSON objects in the text of an answer, strictly or with lenient repairs."""

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from tasks.records import LabelAnswer, Rung

_TRIES = 20
"""Maximum number of unclosed braces: a text full of them must not take a second."""


@dataclass(frozen=True)
class Piece:
    """A JSON object in a text: its value, how it was read, and where it begins and ends."""

    value: dict[str, Any]
    rung: Rung
    start: int
    end: int


def read_object(text: str, *, strict: bool) -> dict[str, Any] | None:
    """Return the text as a JSON object, or None; `strict` is that of json.loads."""
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


def find_pieces(text: str) -> list[Piece]:
    """Return every balanced {…} that is a non-empty JSON object, read strictly or leniently, in the text's order."""
    pieces: list[Piece] = []
    unclosed = 0
    start = text.find("{")
    while start >= 0:
        end = _balanced_end(text, start)
        if end is None:
            unclosed += 1
            if unclosed == _TRIES:
                return []
        else:
            piece = text[start:end]
            if found := read_object(piece, strict=True):
                pieces.append(Piece(found, Rung.STRIPPED, start, end))
            elif found := read_object(piece, strict=False) or read_object(_correct_punctuation(piece), strict=False):
                pieces.append(Piece(found, Rung.REPAIRED_JSON, start, end))
        start = text.find("{", start + 1 if end is None else end)
    return pieces


def rebuild_from_keys(text: str, constraint: LabelAnswer) -> tuple[dict[str, Any], Rung] | None:
    """Return label and reason found by their keys in JSON with an unescaped quote or a missing brace."""
    key = quote_key(constraint.label_key)
    named = re.findall(key + r"""\s*[:：]\s*["'“]([^"'“”}]*)["'”]""", text)
    if len(set(named)) != 1:
        return None
    found = {constraint.label_key: named[0]}
    if constraint.reason_key is not None:
        pattern = quote_key(constraint.reason_key) + r"""\s*[:：]\s*["'“](.*?)["'”]\s*[,，]\s*""" + key
        if reason := re.search(pattern, text, re.DOTALL):
            found[constraint.reason_key] = reason[1]
    return found, Rung.REPAIRED_JSON


def quote_key(key: str) -> str:
    """Return a pattern for the key in quotation marks of any kind."""
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
