"""What the rationale gate has to know of a language, and the codes of what can be wrong with a reason."""

import re
from dataclasses import dataclass
from enum import StrEnum

RIGHT, OTHER = "\ue000", "\ue001"
"""What the gate writes for a mention of the label and of one of the item's other labels: characters of no text."""

NEVER = re.compile(r"(?!)")


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
    """One language's lists. Patterns are tried on a marked reason (`reason_text.marked`): RIGHT and OTHER stand for
    labels, words of the item itself are taken out, letters are lower case.
    """

    scripts: frozenset[str] = frozenset()
    """First words of the Unicode names of its letters; empty: any."""
    spaced: bool = True
    """Whether words are set apart by spaces."""
    physical: re.Pattern[str] = NEVER
    """Things that are called as the label is, but can be seen: a price label, a tab."""
    leaks: re.Pattern[str] = NEVER
    """The label was there before the reason: given, marked, told, the right answer."""
    denies: re.Pattern[str] = NEVER
    """Ends where a label begins, and says that it does not fit."""
    compares: re.Pattern[str] = NEVER
    """Ends where another label begins, and only sets it beside this one."""
    denied: re.Pattern[str] = NEVER
    """Begins where a label ends, and says that it does not fit."""
    asserts: re.Pattern[str] = NEVER
    """Ends where a label begins, and gives it as the answer."""
    turns: re.Pattern[str] = NEVER
    """Ends where a label begins, and announces that something else follows: first …, although …."""
    idle: re.Pattern[str] = NEVER
    """Words that fit any item."""
    praise: re.Pattern[str] = NEVER
    """Words that judge instead of showing: those of `idle` that praise is made of."""
    faults: tuple[tuple[BadReason, str], ...] = ()
    """What was wrong, in words for the model that is asked again."""
    complaint: str = "“{reason}”: {fault}"
    """The whole complaint around `reason` and `fault`."""


def alternation(words: str) -> str:
    """A pattern of any of the words (white space between them), the longest first: none hides a longer one."""
    return "|".join(sorted(map(re.escape, words.split()), key=len, reverse=True))
