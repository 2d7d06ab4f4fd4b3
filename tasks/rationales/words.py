"""What the gate knows of a language: templates/words/<language>.yaml, read, checked and compiled once.

A language without a file has empty lists: then the checks that need no words are made, and no others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import PackError
from tasks.packs.pack import TEMPLATES
from tasks.storage.yaml_files import read_yaml

FOLDER = TEMPLATES / "words"

RIGHT = "\ue000"
"""What the gate writes for a mention of the item's label (`<label>` in the files): a character of no text."""
OTHER = "\ue001"
"""What the gate writes for a mention of another label that the item may have."""

NEVER = re.compile(r"(?!)")

_LANGUAGE = re.compile(r"[a-z]+")
_NAMED = re.compile(r"(?<!\?P)<(\w+)>")


class BadReason(StrEnum):
    """Why a rationale is refused."""

    TOO_SHORT = "reason_too_short"
    TOO_LONG = "reason_too_long"
    GARBLED = "reason_garbled"
    OTHER_LANGUAGE = "reason_in_another_language"
    LEAKS_LABEL = "reason_says_the_label_was_given"
    NAMES_OTHER_LABEL = "reason_names_another_label"
    DENIES_LABEL = "reason_denies_the_label"
    SAYS_NOTHING = "reason_says_nothing_of_the_item"
    BEGINS_ALIKE = "reason_begins_like_others"
    ALIKE = "reason_like_others"
    UNSUPPORTED = "reason_does_not_lead_to_the_label"


@dataclass(frozen=True)
class ReasonWords:
    """The lists of one language, as the comments of its file describe them.

    Patterns are tried on a marked reason (`gate.marked`): RIGHT and OTHER stand for labels, words of the item itself
    are taken out, letters are lower case.
    """

    scripts: frozenset[str] = frozenset()
    """Empty: letters of any script."""
    spaced: bool = True
    physical: re.Pattern[str] = NEVER
    leaks: re.Pattern[str] = NEVER
    denies: re.Pattern[str] = NEVER
    compares: re.Pattern[str] = NEVER
    denied: re.Pattern[str] = NEVER
    asserts: re.Pattern[str] = NEVER
    turns: re.Pattern[str] = NEVER
    idle: re.Pattern[str] = NEVER
    """The words of `praise` too."""
    praise: re.Pattern[str] = NEVER
    faults: Mapping[BadReason, str] = field(default_factory=dict[BadReason, str])
    complaint: str = ""


class _WordsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scripts: list[str]
    spaced: bool
    pieces: dict[str, str] = {}
    physical: list[str] = []
    leaks: list[str] = []
    denies: list[str] = []
    compares: list[str] = []
    denied: list[str] = []
    asserts: list[str] = []
    turns: list[str] = []
    idle: str = ""
    praise: str = ""
    faults: dict[BadReason, str]
    complaint: str


_PATTERNS = ("physical", "leaks", "denies", "compares", "denied", "asserts", "turns")


def has_words(language: str) -> bool:
    """Return whether there is a file for a language code (`zh`, `zh-CN`, `en`, …)."""
    return _file_of(language).is_file()


def reason_words(language: str) -> ReasonWords:
    """Return the lists of a language code, empty ones where it has no file; raises PackError, naming file and key."""
    return _words_of(_file_of(language))


@lru_cache
def _words_of(file: Path) -> ReasonWords:
    return read_words(file) if file.is_file() else ReasonWords()


def read_words(file: Path) -> ReasonWords:
    """Read and check a language's file; raises PackError, naming file and key."""
    try:
        found = _WordsFile.model_validate(read_yaml(file, PackError, "words are lists of patterns, see zh.yaml"))
    except ValidationError as error:
        lines = [f"{'.'.join(str(x) for x in e['loc']) or 'content'}: {e['msg']}" for e in error.errors()]
        raise PackError(f"{file}: " + "; ".join(lines)) from error
    if missing := set(BadReason) - found.faults.keys():
        raise PackError(f"{file}: faults: add {', '.join(sorted(missing))}")
    try:
        found.complaint.format(reason="", fault="")
    except (LookupError, ValueError) as error:
        raise PackError(f"{file}: complaint: may name {{reason}} and {{fault}} only: {error}") from error
    return ReasonWords(
        scripts=frozenset(found.scripts),
        spaced=found.spaced,
        **{key: _compiled(file, key, getattr(found, key), found.pieces) for key in _PATTERNS},
        idle=_any_of(f"{found.idle} {found.praise}", spaced=found.spaced),
        praise=_any_of(found.praise, spaced=found.spaced),
        faults=found.faults,
        complaint=found.complaint,
    )


def _compiled(file: Path, key: str, patterns: list[str], pieces: dict[str, str]) -> re.Pattern[str]:
    """Return a pattern that matches what any of `patterns` does; NEVER for none."""
    known = pieces | {"label": RIGHT}
    for number, pattern in enumerate(patterns, start=1):
        if unknown := [name for name in _NAMED.findall(pattern) if name not in known]:
            raise PackError(f"{file}: {key}, number {number}: <{unknown[0]}> is neither <label> nor one of `pieces`")
        try:
            re.compile(_filled(pattern, known))
        except re.error as error:
            raise PackError(f"{file}: {key}, number {number}: not a valid regular expression: {error}") from error
    return re.compile("|".join(_filled(p, known) for p in patterns)) if patterns else NEVER


def _filled(pattern: str, known: dict[str, str]) -> str:
    return _NAMED.sub(lambda named: known[named[1]], pattern)


def _any_of(words: str, *, spaced: bool) -> re.Pattern[str]:
    """Return a pattern of any of the words, the longest first, so that none hides a longer one; NEVER for none."""
    if not words.split():
        return NEVER
    pattern = "|".join(sorted(map(re.escape, words.split()), key=len, reverse=True))
    return re.compile(rf"\b(?:{pattern})\b" if spaced else pattern)


def _file_of(language: str) -> Path:
    code = _LANGUAGE.match(language.lower())
    return FOLDER / f"{code[0] if code else 'none'}.yaml"
