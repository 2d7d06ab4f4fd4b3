"""A reason's text as the rationale gate's patterns see it: labels marked, quotations taken out, scripts told apart."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tasks.rationales.words.lists import OTHER, RIGHT, ReasonWords
from tasks.records import Sample

SHORT_LABEL = 2
"""A label of so few characters is an ordinary word too: it counts as named only where it is given as the answer."""
QUOTED = re.compile(r"[“\"「『‘'《]([^”\"」』’'》]{1,40})[”\"」』’'》]")
_CHARS_A_WORD = 1.7
"""Chinese characters that weigh as much as a spaced word: an estimate of the length of one."""
_NEVER_A_NAME = 3.0
"""Weight of a word in a script that, unlike Latin, names of goods are not written in."""
_SPACED = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HANGUL"})


@dataclass(frozen=True)
class Marked:
    """A reason as the lists of words see it. Made by `marked`."""

    text: str
    """NFKC, lower case; RIGHT and OTHER stand for mentions of labels."""
    others: tuple[str, ...]
    """The other labels, in the order of their OTHERs."""


def marked(reason: str, labels: Sequence[str], label: str) -> Marked:
    """`reason` with marks for labels: whole, without what they have in brackets, or their part behind a dash."""
    names: dict[str, str] = {}
    for other in labels:
        if other != label:
            for name in _names(other):
                # a name that two labels share says nothing
                names[name] = other if name not in names else ""
    for name in _names(label):
        names[name] = label
    # a word of the right label is no other label
    known = {name: owner for name, owner in names.items() if owner == label or (owner and name not in plain(label))}
    text = plain(reason)
    if not known:
        return Marked(text, ())
    others: list[str] = []

    def mark(match: re.Match[str]) -> str:
        owner = known[match[0]]
        if owner == label:
            return RIGHT
        others.append(owner)
        return OTHER

    longest_first = sorted(known, key=len, reverse=True)
    return Marked(re.sub("|".join(map(re.escape, longest_first)), mark, text), tuple(others))


def plain(text: str) -> str:
    """NFKC and lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def _names(label: str) -> Iterator[str]:
    """The names that a label goes by: `物流页面-物流跟踪页面` is `物流跟踪页面` and `物流跟踪页` as well."""
    whole = plain(label)
    bare = re.sub(r"[(（][^)）]*[)）]", "", whole)
    for name in dict.fromkeys((whole, bare, bare.split("-")[-1])):
        yield name
        shorter = name.removesuffix("面") if name.endswith("页面") else name.removesuffix("截图")
        if shorter != name and len(shorter) > SHORT_LABEL:
            yield shorter


def said_in(sample: Sample) -> str:
    """All that the item's text says, plain."""
    return plain("".join(part.text for part in sample.parts if part.type == "text"))


def unquoted(reason: str, sample: Sample) -> str:
    """Without quotations from the item, which give nothing away: what its text says, or may stand on its images.

    A label alone in quotation marks is no quotation.
    """
    said = said_in(sample)
    names = {name for label in sample.labels for name in _names(label)}

    def taken_out(quote: re.Match[str]) -> str:
        text = plain(quote[1])
        return "“”" if text not in names and (text in said or sample.images) else quote[0]

    return QUOTED.sub(taken_out, reason)


def own_share(reason: str, sample: Sample, words: ReasonWords) -> float:
    """The share of the reason's words that are in the language's script, quotations and the item's own words aside."""
    if not words.scripts:
        return 1.0
    own = foreign = 0.0
    for word in re.findall(r"[^\W\d_]+", QUOTED.sub(" ", reason)):
        for script, letters in _scripts(word):
            spaced = script in _SPACED
            weight = 1.0 if spaced else len(letters) / _CHARS_A_WORD
            if script in words.scripts:
                own += weight
            elif script != "LATIN":
                foreign += _NEVER_A_NAME * weight
            # single letters, abbreviations (APP) and what the item itself says are at home in every language
            elif len(letters) > 1 and not letters.isupper() and letters.lower() not in said_in(sample):
                foreign += weight
    return own / (own + foreign) if own + foreign else 1.0


def _scripts(word: str) -> Iterator[tuple[str, str]]:
    """The runs of letters of one script in `word`, each with its script's name."""
    run, before = "", ""
    for letter in word:
        script = unicodedata.name(letter, "").partition(" ")[0]
        if script != before and run:
            yield before, run
            run = ""
        run, before = run + letter, script
    if run:
        yield before, run
