"""The only room with lists of words: what the rationale gate knows of each language.

A language that is not here has empty lists: then the checks that need no words are made, and no others.
"""

from functools import lru_cache

from tasks.rationales.words.chinese import CHINESE
from tasks.rationales.words.english import ENGLISH
from tasks.rationales.words.words import NEVER, OTHER, RIGHT, BadReason, ReasonWords

__all__ = ["NEVER", "OTHER", "RIGHT", "BadReason", "ReasonWords", "has_words", "reason_words"]

_KNOWN = {"zh": CHINESE, "en": ENGLISH}


@lru_cache
def reason_words(language: str) -> ReasonWords:
    """The lists of a language code (`zh`, `zh-CN`, `en`, …), empty ones for a language without."""
    return _KNOWN.get(_code(language), ReasonWords())


def has_words(language: str) -> bool:
    """Whether there are lists for that language code."""
    return _code(language) in _KNOWN


def _code(language: str) -> str:
    return language.lower().replace("_", "-").partition("-")[0]
