"""Read the patterns that judge reasons in one language from templates/words/<language>.yaml.

A language without a file has empty lists; only the checks that need no words are then made.
"""

import re
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, model_validator

from tasks.errors import PackError
from tasks.packs.pack import TEMPLATES
from tasks.storage.yaml_files import explain_errors, read_yaml

FOLDER = TEMPLATES / "words"

RIGHT = "\ue000"
"""A private-use character that replaces mentions of the item's label (`<label>` in the files)."""
OTHER = "\ue001"
"""A private-use character that replaces mentions of the item's other labels."""

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
    BOX_UNUSABLE = "reason_box_unusable"
    BOX_ELSEWHERE = "reason_box_without_its_words"
    BOX_TOO_LARGE = "reason_box_too_large"
    UNSUPPORTED = "reason_does_not_lead_to_the_label"
    JUDGED_NOT_VISIBLE = "reason_judged_not_visible"
    JUDGED_INVENTED = "reason_judged_invented"
    JUDGED_FOR_NEIGHBOUR = "reason_judged_to_fit_a_similar_label"


def _compile_patterns(patterns: Any, info: ValidationInfo) -> re.Pattern[str]:
    """Return a pattern that matches whatever any of `patterns` matches; NEVER for an empty list."""
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in cast(list[object], patterns)):
        raise ValueError("must be a list of regular expressions in quotes")
    known: dict[str, str] = {"label": RIGHT, **info.data.get("pieces", {})}
    filled: list[str] = []
    for number, pattern in enumerate(cast(list[str], patterns), start=1):
        if unknown := [name for name in _NAMED.findall(pattern) if name not in known]:
            raise ValueError(f"pattern {number}: <{unknown[0]}> is neither <label> nor one of `pieces`")
        filled.append(_NAMED.sub(lambda named: known[named[1]], pattern))
        try:
            re.compile(filled[-1])
        except re.error as error:
            raise ValueError(f"pattern {number}: not a valid regular expression: {error}") from error
    return re.compile("|".join(filled)) if filled else NEVER


def _compile_words(text: Any, info: ValidationInfo) -> re.Pattern[str]:
    """Return a pattern of all words, the longest first, so that none hides a longer one; NEVER for no words."""
    if not isinstance(text, str):
        raise ValueError("must be words with spaces between them")
    pattern = "|".join(sorted(map(re.escape, text.split()), key=len, reverse=True))
    if not pattern:
        return NEVER
    return re.compile(rf"\b(?:{pattern})\b" if info.data.get("spaced") else pattern)


_Patterns = Annotated[re.Pattern[str], BeforeValidator(_compile_patterns)]
_Words = Annotated[re.Pattern[str], BeforeValidator(_compile_words)]


class ReasonWords(BaseModel):
    """The patterns of one language. The comments in its file describe them; any list may be left out.

    Patterns are tried on a marked reason (`gate.mark_labels`): RIGHT and OTHER replace labels, quotations from the item
    are removed, and letters are lower case.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scripts: frozenset[str] = frozenset()
    """Scripts of the language, each the first word of its letters' Unicode names, e.g. LATIN; empty: any script."""
    spaced: bool = True
    pieces: dict[str, str] = {}
    physical: _Patterns = NEVER
    leaks: _Patterns = NEVER
    denies: _Patterns = NEVER
    compares: _Patterns = NEVER
    denied: _Patterns = NEVER
    asserts: _Patterns = NEVER
    turns: _Patterns = NEVER
    idle: _Words = NEVER
    """Words that fit any item, including those of `praise`."""
    praise: _Words = NEVER
    faults: dict[BadReason, str] = {}
    complaint: str = ""

    @model_validator(mode="before")
    @classmethod
    def _praise_is_idle(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return cast(object, content)
        keys = cast(dict[str, Any], content)
        return keys | {"idle": f"{keys.get('idle', '')} {keys.get('praise', '')}"}


def has_words(language: str) -> bool:
    """Return whether there is a file for a language code (`zh`, `zh-CN`, `en`, …)."""
    return _file_of(language).is_file()


def load_reason_words(language: str) -> ReasonWords:
    """Return the patterns for a language code, or empty ones if it has no file; raises PackError with file and key."""
    return _words_of(_file_of(language))


@lru_cache
def _words_of(file: Path) -> ReasonWords:
    return read_words(file) if file.is_file() else ReasonWords()


def read_words(file: Path) -> ReasonWords:
    """Read and check the file of a language; raises PackError with file and key."""
    try:
        found = ReasonWords.model_validate(read_yaml(file, PackError, "write lists of patterns as in zh.yaml"))
    except ValidationError as error:
        raise PackError(explain_errors(file, error)) from error
    if missing := {"scripts", "spaced", "faults", "complaint"} - found.model_fields_set:
        raise PackError(f"{file}: {', '.join(sorted(missing))}: the key is missing; add it")
    if missing := set(BadReason) - found.faults.keys():
        raise PackError(f"{file}: faults: keys are missing; add {', '.join(sorted(missing))}")
    try:
        found.complaint.format(reason="", fault="")
    except (LookupError, ValueError) as error:
        raise PackError(f"{file}: complaint: use only the names {{reason}} and {{fault}}: {error}") from error
    return found


def _file_of(language: str) -> Path:
    code = _LANGUAGE.match(language.lower())
    return FOLDER / f"{code[0] if code else 'none'}.yaml"
