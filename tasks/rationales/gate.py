"""Which rationales to keep, and why not: what a reason's own text shows.

Reasons that give the label away, argue for another one or would fit any item teach a student nothing, or worse: people
who competed saw contradicting reasons hurt. What can only be seen beside the others' is judged in diversity.py.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.packs.pack import Pack
from tasks.rationales.diversity import Worded, find_alike
from tasks.rationales.reason_text import QUOTED, SHORT_LABEL, Marked, marked, own_share, plain, said_in, unquoted
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words.lists import NEVER, OTHER, RIGHT, BadReason, ReasonWords, reason_words
from tasks.records import Prediction, Sample

_MIN_CHARS = 4
_OWN_LETTERS = 0.5
"""Least share of a reason's words that must be of the pack's language: names of goods are Latin everywhere."""
_LOOP = re.compile(r"([^\d\s])\1{4,}|(?!(\d{2,12}?|\s{2,12}?)\2{2,})(.{2,12}?)\3{2,}", re.DOTALL)
"""A character five times, a group three times; but for digits alone, as in an order's number, and white space."""
_MARKUP = re.compile(r"\ufffd|[{}]|\"\s*:|```|^\s*(?:[-*#]|\d+[.、)])\s|\n\s*\n|</?\w+>", re.MULTILINE)
_NOTHING = 3
"""A reason with fewer characters (words) of its own than this says nothing, praise or not."""
_LITTLE, _LITTLE_SHARE = 6, 0.4
"""With praise in it, so few, and so small a share of it, are nothing too."""


@dataclass(frozen=True)
class Explained:
    """A reason for `label` of `sample`. Made by whoever has reasons; read by `judge_reasons`."""

    sample: Sample
    label: str
    reason: str

    def worded(self) -> Worded:
        """The reason as alikeness sees it."""
        return Worded(marked(self.reason, self.sample.labels, self.label).text, self.label)


def judge_reason(reason: str, sample: Sample, label: str, pack: Pack) -> BadReason | None:
    """What is wrong with `reason` as an explanation of `label`, or None when its text shows nothing.

    Language by script only: two languages in Latin letters are not told apart. What is wrong with its wording is
    looked for where the pack's language has lists (tasks/wording).
    """
    if len(reason.strip()) < _MIN_CHARS:
        return BadReason.TOO_SHORT
    if len(reason) > pack.reason_max_chars:
        return BadReason.TOO_LONG
    if _MARKUP.search(reason) or _LOOP.search(reason):
        return BadReason.GARBLED
    words = reason_words(pack.language)
    if own_share(reason, sample, words) < _OWN_LETTERS:
        return BadReason.OTHER_LANGUAGE
    seen = marked(unquoted(reason, sample), sample.labels, label)
    if words.leaks.search(words.physical.sub("thing" if words.spaced else "物", seen.text)):
        return BadReason.LEAKS_LABEL
    if _names_other(seen, sample, words):
        return BadReason.NAMES_OTHER_LABEL
    if len(label) > SHORT_LABEL and _denied(seen.text, RIGHT, words):
        return BadReason.DENIES_LABEL
    return BadReason.SAYS_NOTHING if _says_nothing(marked(reason, sample.labels, label).text, words) else None


def judge_reasons(
    explained: Sequence[Explained],
    pack: Pack,
    settings: RationaleSettings,
    *,
    standing: Sequence[Worded] = (),
    last: bool,
) -> list[BadReason | None]:
    """What is wrong with each reason, in order: by its own text, and beside the others that have no such fault.

    `standing` are reasons that were kept before; `last` as in `find_alike`.
    """
    faults = [judge_reason(e.reason, e.sample, e.label, pack) for e in explained]
    sound = [i for i, fault in enumerate(faults) if fault is None]
    alike = find_alike([explained[i].worded() for i in sound], standing, settings, last=last)
    for at, fault in alike.items():
        faults[sound[at]] = fault
    return faults


def supports(answer: Prediction, label: str) -> bool | None:
    """Whether a model that was asked for the label after a reason came to `label`; None where it can't say.

    Without label probabilities a server has chosen its label before our reason, so that proves nothing.
    """
    return answer.label == label if answer.probabilities else None


def with_good_reasons(
    predictions: Sequence[Prediction], samples: Mapping[str, Sample], pack: Pack
) -> tuple[list[Prediction], Counter[str]]:
    """The predictions, without their reason where its text is bad, and how many lost it for what.

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


def complaint(bad: BadReason, reason: str, pack: Pack) -> str:
    """What a model is told when it is asked again, in the pack's language; empty where that has no words for it."""
    words = reason_words(pack.language)
    fault = dict(words.faults).get(bad)
    return words.complaint.format(reason=reason[: pack.reason_max_chars], fault=fault) if fault else ""


def _names_other(seen: Marked, sample: Sample, words: ReasonWords) -> bool:
    said = said_in(sample)
    for number, mention in enumerate(re.finditer(OTHER, seen.text)):
        before, after = seen.text[: mention.start()], seen.text[mention.end() :]
        name = plain(seen.others[number])
        if any(p.search(before) for p in (words.denies, words.compares, words.turns)) or words.denied.search(after):
            continue
        if words.asserts.search(before):
            return True
        if len(name) > SHORT_LABEL and name not in said and RIGHT not in after:
            return True
    return False


def _denied(text: str, mark: str, words: ReasonWords) -> bool:
    return any(words.denies.search(text[: mention.start()]) for mention in re.finditer(mark, text))


def _says_nothing(text: str, words: ReasonWords) -> bool:
    """Whether too little is left of it without labels and words that fit any item."""
    if words.idle is NEVER:
        return False
    whole = _weight(text.replace(RIGHT, "").replace(OTHER, ""), words)
    quotes = [quote for quote in QUOTED.findall(text) if not re.fullmatch(f"[{RIGHT}{OTHER}]", quote)]
    rest = words.idle.sub(" ", QUOTED.sub(" ", text)).replace(RIGHT, " ").replace(OTHER, " ")
    left = _weight(rest, words) + sum(_weight(quote, words) for quote in quotes)
    if left < _NOTHING:
        return True
    return bool(words.praise.search(text)) and left < _LITTLE and left < _LITTLE_SHARE * whole


def _weight(text: str, words: ReasonWords) -> int:
    """Characters (words in a spaced language); a number counts as two."""
    numbers = len(re.findall(r"\d+", text))
    letters = re.findall(r"[^\W\d_]+" if words.spaced else r"[^\W\d_]", text)
    return 2 * numbers + len(letters)
