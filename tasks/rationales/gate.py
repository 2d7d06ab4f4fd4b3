"""Which rationales to keep, and why not: what a reason's own text shows.

Reasons that give the label away, argue for another one or would fit any item teach a student nothing, or worse: people
who competed saw contradicting reasons hurt. What can only be seen beside the others' is judged in diversity.py.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from tasks.packs.pack import Pack
from tasks.rationales.diversity import Worded, find_alike
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words import NEVER, OTHER, RIGHT, BadReason, ReasonWords, reason_words
from tasks.records import Prediction, Sample

_MIN_CHARS = 4
_OWN_LETTERS = 0.5
"""Least share of a reason's words that must be of the pack's language: names of goods are Latin everywhere."""
_LOOP = re.compile(r"([^\d\s])\1{4,}|(?!(\d{2,12}?|\s{2,12}?)\2{2,})(.{2,12}?)\3{2,}", re.DOTALL)
"""A character five times, a group three times; but for digits alone, as in an order's number, and white space."""
_MARKUP = re.compile(r"\ufffd|[{}]|\"\s*:|```|^\s*(?:[-*#]|\d+[.、)])\s|\n\s*\n|</?\w+>", re.MULTILINE)
_NOTHING = 3
"""A reason with fewer characters (words) of its own than this says nothing, praise or not."""
_LITTLE = 6
_LITTLE_SHARE = 0.4
"""With praise in it, fewer than `_LITTLE` of its own, and less than this share of it, are nothing too."""
_SHORT_LABEL = 2
"""A label of so few characters is an ordinary word too: it counts as named only where it is given as the answer."""
_QUOTED = re.compile(r"[“\"「『‘'《]([^”\"」』’'》]{1,40})[”\"」』’'》]")
_CHARS_A_WORD = 1.7
"""Chinese characters that weigh as much as a spaced word: an estimate of the length of one."""
_NEVER_A_NAME = 3.0
"""Weight of a word in a script that, unlike Latin, names of goods are not written in."""
_SPACED = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HANGUL"})


@dataclass(frozen=True)
class Marked:
    """A reason as the lists of words see it. Made by `mark_labels`."""

    text: str
    """NFKC, lower case; RIGHT and OTHER stand for mentions of labels."""
    others: tuple[str, ...]
    """The other labels, in the order of their OTHERs."""


@dataclass(frozen=True)
class Explained:
    """A reason for `label` of `sample`. Made by whoever has reasons; read by `judge_reasons`."""

    sample: Sample
    label: str
    reason: str

    def worded(self) -> Worded:
        """The reason as alikeness sees it."""
        return Worded(mark_labels(self.reason, self.sample.labels, self.label).text, self.label)


def judge_reason(reason: str, sample: Sample, label: str, pack: Pack) -> BadReason | None:
    """Return what is wrong with `reason` as an explanation of `label`, or None when its text shows nothing.

    Language by script only: two languages in Latin letters are not told apart. What is wrong with its wording is
    looked for where the pack's language has lists (templates/words).
    """
    if len(reason.strip()) < _MIN_CHARS:
        return BadReason.TOO_SHORT
    if len(reason) > pack.reason_max_chars:
        return BadReason.TOO_LONG
    if _MARKUP.search(reason) or _LOOP.search(reason):
        return BadReason.GARBLED
    words = reason_words(pack.language)
    if _own_share(reason, sample, words) < _OWN_LETTERS:
        return BadReason.OTHER_LANGUAGE
    seen = mark_labels(_unquoted(reason, sample), sample.labels, label)
    if words.leaks.search(words.physical.sub("thing" if words.spaced else "物", seen.text)):
        return BadReason.LEAKS_LABEL
    if _names_other(seen, sample, words):
        return BadReason.NAMES_OTHER_LABEL
    if len(label) > _SHORT_LABEL and _denies_label(seen.text, words):
        return BadReason.DENIES_LABEL
    return BadReason.SAYS_NOTHING if _says_nothing(mark_labels(reason, sample.labels, label).text, words) else None


def judge_reasons(
    explained: Sequence[Explained],
    pack: Pack,
    settings: RationaleSettings,
    *,
    standing: Sequence[Worded] = (),
    last: bool,
) -> list[BadReason | None]:
    """Return what is wrong with each reason, in order: by its own text, and beside the others without such a fault.

    `standing` are reasons that were kept before; `last` as in `find_alike`.
    """
    faults = [judge_reason(e.reason, e.sample, e.label, pack) for e in explained]
    sound = [i for i, fault in enumerate(faults) if fault is None]
    alike = find_alike([explained[i].worded() for i in sound], standing, settings, last=last)
    for at, fault in alike.items():
        faults[sound[at]] = fault
    return faults


def supports(answer: Prediction, label: str) -> bool | None:
    """Return whether a model asked for the label after a reason came to `label`; None where it can't say.

    Without label probabilities a server has chosen its label before our reason, so that proves nothing.
    """
    return answer.label == label if answer.probabilities else None


def remove_bad_reasons(
    predictions: Sequence[Prediction], samples: Mapping[str, Sample], pack: Pack
) -> tuple[list[Prediction], Counter[str]]:
    """Take the reason from each prediction where its text is bad; return them all, and how many lost it for what.

    For a teacher's reasons, which came with its labels: they are not asked for again.
    """
    faults: Counter[str] = Counter()
    checked: list[Prediction] = []
    for prediction in predictions:
        bad = None
        if prediction.reason and prediction.label is not None:
            bad = judge_reason(prediction.reason, samples[prediction.sample_id], prediction.label, pack)
        if bad is not None:
            faults[bad] += 1
            prediction = prediction.model_copy(update={"reason": ""})
        checked.append(prediction)
    return checked, faults


def write_complaint(bad: BadReason, reason: str, pack: Pack) -> str:
    """Write what a model is told when it is asked again, in the pack's language; empty where that has no words."""
    words = reason_words(pack.language)
    fault = words.faults.get(bad)
    return words.complaint.format(reason=reason[: pack.reason_max_chars], fault=fault) if fault else ""


def _names_other(seen: Marked, sample: Sample, words: ReasonWords) -> bool:
    said = _said_in(sample)
    for number, mention in enumerate(re.finditer(OTHER, seen.text)):
        before, after = seen.text[: mention.start()], seen.text[mention.end() :]
        name = _plain(seen.others[number])
        if any(p.search(before) for p in (words.denies, words.compares, words.turns)) or words.denied.search(after):
            continue
        if words.asserts.search(before):
            return True
        if len(name) > _SHORT_LABEL and name not in said and RIGHT not in after:
            return True
    return False


def _denies_label(text: str, words: ReasonWords) -> bool:
    return any(words.denies.search(text[: mention.start()]) for mention in re.finditer(RIGHT, text))


def _says_nothing(text: str, words: ReasonWords) -> bool:
    """Whether too little is left of it without labels and words that fit any item."""
    if words.idle is NEVER:
        return False
    whole = _weight(text.replace(RIGHT, "").replace(OTHER, ""), words)
    quotes = [quote for quote in _QUOTED.findall(text) if not re.fullmatch(f"[{RIGHT}{OTHER}]", quote)]
    rest = words.idle.sub(" ", _QUOTED.sub(" ", text)).replace(RIGHT, " ").replace(OTHER, " ")
    left = _weight(rest, words) + sum(_weight(quote, words) for quote in quotes)
    if left < _NOTHING:
        return True
    return bool(words.praise.search(text)) and left < _LITTLE and left < _LITTLE_SHARE * whole


def _weight(text: str, words: ReasonWords) -> int:
    """Characters (words in a spaced language); a number counts as two."""
    numbers = len(re.findall(r"\d+", text))
    letters = re.findall(r"[^\W\d_]+" if words.spaced else r"[^\W\d_]", text)
    return 2 * numbers + len(letters)


# --- a reason's text as the patterns see it: labels marked, quotations taken out, scripts told apart ----------


def mark_labels(reason: str, labels: Sequence[str], label: str) -> Marked:
    """Put marks for labels into `reason`: whole, without what they have in brackets, or their part behind a dash."""
    names: dict[str, str] = {}
    for other in labels:
        if other != label:
            for name in _names(other):
                # a name that two labels share says nothing
                names[name] = other if name not in names else ""
    for name in _names(label):
        names[name] = label
    # a word of the right label is no other label
    known = {name: owner for name, owner in names.items() if owner == label or (owner and name not in _plain(label))}
    text = _plain(reason)
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


def _plain(text: str) -> str:
    """NFKC and lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def _names(label: str) -> Iterator[str]:
    """The names that a label goes by: `物流页面-物流跟踪页面` is `物流跟踪页面` and `物流跟踪页` as well."""
    whole = _plain(label)
    bare = re.sub(r"[(（][^)）]*[)）]", "", whole)
    for name in dict.fromkeys((whole, bare, bare.split("-")[-1])):
        yield name
        shorter = name.removesuffix("面") if name.endswith("页面") else name.removesuffix("截图")
        if shorter != name and len(shorter) > _SHORT_LABEL:
            yield shorter


def _said_in(sample: Sample) -> str:
    """All that the item's text says, plain."""
    return _plain("".join(part.text for part in sample.parts if part.type == "text"))


def _unquoted(reason: str, sample: Sample) -> str:
    """Without quotations from the item, which give nothing away: what its text says, or may stand on its images.

    A label alone in quotation marks is no quotation.
    """
    said = _said_in(sample)
    names = {name for label in sample.labels for name in _names(label)}

    def taken_out(quote: re.Match[str]) -> str:
        text = _plain(quote[1])
        return "“”" if text not in names and (text in said or sample.images) else quote[0]

    return _QUOTED.sub(taken_out, reason)


def _own_share(reason: str, sample: Sample, words: ReasonWords) -> float:
    """The share of the reason's words that are in the language's script, quotations and the item's own words aside."""
    if not words.scripts:
        return 1.0
    own = foreign = 0.0
    for word in re.findall(r"[^\W\d_]+", _QUOTED.sub(" ", reason)):
        for script, letters in _scripts(word):
            spaced = script in _SPACED
            weight = 1.0 if spaced else len(letters) / _CHARS_A_WORD
            if script in words.scripts:
                own += weight
            elif script != "LATIN":
                foreign += _NEVER_A_NAME * weight
            # single letters, abbreviations (APP) and what the item itself says are at home in every language
            elif len(letters) > 1 and not letters.isupper() and letters.lower() not in _said_in(sample):
                foreign += weight
    return own / (own + foreign) if own + foreign else 1.0


def _scripts(word: str) -> Iterator[tuple[str, str]]:
    """The runs of letters of one script in `word`, each with its script's name."""
    runs = groupby(word, key=lambda letter: unicodedata.name(letter, "").partition(" ")[0])
    return ((script, "".join(letters)) for script, letters in runs)
