"""Judge rationales by their own text and their boxes.

A student learns nothing from a reason that mentions the given label or would fit any item. In the challenge, reasons
that argue for another label did harm. Similarity between reasons is judged in diversity.py.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tasks.media import Box
from tasks.packs.pack import Pack
from tasks.rationales.diversity import MarkedReason, find_alike
from tasks.rationales.grounding import FindLines, judge_words_in_boxes
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words import NEVER, OTHER, RIGHT, BadReason, ReasonWords, load_reason_words
from tasks.records import Prediction, Sample

_MIN_CHARS = 4
_OWN_LETTERS = 0.5
"""Minimum share of a reason's words in the pack's language: product names are in Latin letters everywhere."""
_LOOP = re.compile(r"([^\d\s])\1{4,}|(?!(\d{2,12}?|\s{2,12}?)\2{2,})(.{2,12}?)\3{2,}", re.DOTALL)
"""A character repeated five times or a group three times; digits alone, as in order numbers, and spaces are allowed."""
_MARKUP = re.compile(r"\ufffd|<\|[^<>|\s]+\|>|[{}]|\"\s*:|```|^\s*(?:[-*#]|\d+[.、)])\s|\n\s*\n|</?\w+>", re.MULTILINE)
_NOTHING = 3
"""Minimum characters (words, in a spaced language) of its own that a reason must have."""
_LITTLE = 6
_LITTLE_SHARE = 0.4
"""A reason with praise must have at least `_LITTLE` of its own, or this share of its length."""
_SHORT_LABEL = 2
"""A label of at most this many characters may be an ordinary word: it counts as named only when given as the answer."""
_QUOTED = re.compile(r"[“\"「『‘'《]([^”\"」』’'》]{1,40})[”\"」』’'》]")
_CHARS_A_WORD = 1.7
"""Chinese characters that count as one word: the estimated length of a Chinese word."""
_NEVER_A_NAME = 3.0
"""Weight of a word in a foreign script other than Latin, which is not used for product names."""
_SPACED = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HANGUL"})


@dataclass(frozen=True)
class MarkedText:
    """A reason in which marks replace labels, so that patterns can be tried on it. Made by `mark_labels`."""

    text: str
    """The reason in NFKC and lower case; RIGHT and OTHER replace mentions of labels."""
    others: tuple[str, ...]
    """The labels that OTHER replaces, in the order in which they occur in `text`."""


@dataclass(frozen=True)
class LabelledReason:
    """A reason why `sample` has `label`, to be judged by `judge_reasons`."""

    sample: Sample
    label: str
    reason: str
    boxes: tuple[Box, ...] = ()
    """Those that the reason points at."""
    faults: tuple[str, ...] = ()
    """Why other boxes cannot be used."""

    def mark(self) -> MarkedReason:
        """Return the reason with its labels marked, as diversity.py compares it."""
        return MarkedReason(mark_labels(self.reason, self.sample.labels, self.label).text, self.label)


def judge_reason(reason: str, sample: Sample, label: str, pack: Pack) -> BadReason | None:
    """Return what is wrong with `reason` as an explanation of `label`, or None.

    The language is recognised by its script only, so two languages in Latin letters are not distinguished. Wording is
    checked only if templates/words has a file for the pack's language.
    """
    if len(reason.strip()) < _MIN_CHARS:
        return BadReason.TOO_SHORT
    if len(reason) > pack.reason_max_chars:
        return BadReason.TOO_LONG
    if _MARKUP.search(reason) or _LOOP.search(reason):
        return BadReason.GARBLED
    words = load_reason_words(pack.language)
    if _measure_own_share(reason, sample, words) < _OWN_LETTERS:
        return BadReason.OTHER_LANGUAGE
    seen = mark_labels(_remove_quotations(reason, sample), sample.labels, label)
    if words.leaks.search(words.physical.sub("thing" if words.spaced else "物", seen.text)):
        return BadReason.LEAKS_LABEL
    if _names_other(seen, sample, words):
        return BadReason.NAMES_OTHER_LABEL
    if len(label) > _SHORT_LABEL and _denies_label(seen.text, words):
        return BadReason.DENIES_LABEL
    return BadReason.SAYS_NOTHING if _says_nothing(mark_labels(reason, sample.labels, label).text, words) else None


def judge_text_and_boxes(one: LabelledReason, pack: Pack, find_lines: FindLines | None) -> BadReason | None:
    """Return what is wrong with a reason by its own text and its boxes, or None.

    `find_lines` finds the text on images; without it (a pack without `ocr`), boxes are not judged.
    """
    if one.faults:
        return BadReason.BOX_UNUSABLE
    bad = judge_reason(one.reason, one.sample, one.label, pack)
    if bad is None and find_lines is not None:
        bad = judge_words_in_boxes(one.reason, one.boxes, one.sample, find_lines)
    return bad


def judge_reasons(
    explained: Sequence[LabelledReason],
    pack: Pack,
    settings: RationaleSettings,
    *,
    accepted: Sequence[MarkedReason] = (),
    last: bool,
    find_lines: FindLines | None = None,
) -> list[BadReason | None]:
    """Return what is wrong with each reason, or None, in input order.

    Each reason is judged by its own text and its boxes; the sound ones are then judged by their similarity to the
    others. `accepted` are the reasons that were accepted before; `last` is as in `find_alike`, and `find_lines` as in
    `judge_text_and_boxes`.
    """
    faults = [judge_text_and_boxes(one, pack, find_lines) for one in explained]
    sound = [i for i, fault in enumerate(faults) if fault is None]
    alike = find_alike([explained[i].mark() for i in sound], accepted, settings, last=last)
    for at, fault in alike.items():
        faults[sound[at]] = fault
    return faults


def supports(answer: Prediction, label: str) -> bool | None:
    """Return whether a model that was asked for the label after a reason chose `label`; None if that is unknown.

    It is unknown if the answer has no label probabilities, because a server without them chooses its label before it
    reads the reason.
    """
    return answer.label == label if answer.probabilities else None


def write_complaint(bad: BadReason, reason: str, pack: Pack, remark: str = "") -> str:
    """Return the complaint for the next attempt, in the pack's language; empty if the language has no word file.

    `remark` is what a judge wrote about the reason.
    """
    words = load_reason_words(pack.language)
    fault = words.faults.get(bad)
    if fault and remark:
        fault += f" “{remark}”"
    return words.complaint.format(reason=reason[: pack.reason_max_chars], fault=fault) if fault else ""


def _names_other(seen: MarkedText, sample: Sample, words: ReasonWords) -> bool:
    item_text = _normalise_item_text(sample)
    for number, mention in enumerate(re.finditer(OTHER, seen.text)):
        before, after = seen.text[: mention.start()], seen.text[mention.end() :]
        name = _plain(seen.others[number])
        if any(p.search(before) for p in (words.denies, words.compares, words.turns)) or words.denied.search(after):
            continue
        if words.asserts.search(before):
            return True
        if len(name) > _SHORT_LABEL and name not in item_text and RIGHT not in after:
            return True
    return False


def _denies_label(text: str, words: ReasonWords) -> bool:
    return any(words.denies.search(text[: mention.start()]) for mention in re.finditer(RIGHT, text))


def _says_nothing(text: str, words: ReasonWords) -> bool:
    """Return whether too little of a reason is left without labels and words that fit any item."""
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
    """Return the number of characters (words, in a spaced language); a number counts as two."""
    numbers = len(re.findall(r"\d+", text))
    letters = re.findall(r"[^\W\d_]+" if words.spaced else r"[^\W\d_]", text)
    return 2 * numbers + len(letters)


# --- prepare a reason's text: mark labels, remove quotations, split scripts -----------------------------------


def mark_labels(reason: str, labels: Sequence[str], label: str) -> MarkedText:
    """Replace labels in `reason` by marks: whole labels, labels without bracketed text, and the part after a dash."""
    names: dict[str, str] = {}
    for other in labels:
        if other != label:
            for name in _names(other):
                # a name that two labels share identifies neither
                names[name] = other if name not in names else ""
    for name in _names(label):
        names[name] = label
    # a part of the right label is not another label
    known = {name: owner for name, owner in names.items() if owner == label or (owner and name not in _plain(label))}
    text = _plain(reason)
    if not known:
        return MarkedText(text, ())
    others: list[str] = []

    def mark(match: re.Match[str]) -> str:
        owner = known[match[0]]
        if owner == label:
            return RIGHT
        others.append(owner)
        return OTHER

    longest_first = sorted(known, key=len, reverse=True)
    return MarkedText(re.sub("|".join(map(re.escape, longest_first)), mark, text), tuple(others))


def _plain(text: str) -> str:
    """Return `text` in NFKC and lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def _names(label: str) -> Iterator[str]:
    """Yield the names of a label: `物流页面-物流跟踪页面` is also called `物流跟踪页面` and `物流跟踪页`."""
    whole = _plain(label)
    bare = re.sub(r"[(（][^)）]*[)）]", "", whole)
    for name in dict.fromkeys((whole, bare, bare.split("-")[-1])):
        yield name
        shorter = name.removesuffix("面") if name.endswith("页面") else name.removesuffix("截图")
        if shorter != name and len(shorter) > _SHORT_LABEL:
            yield shorter


def _normalise_item_text(sample: Sample) -> str:
    """Return the item's whole text in NFKC and lower case."""
    return _plain("".join(part.text for part in sample.parts if part.type == "text"))


def _remove_quotations(reason: str, sample: Sample) -> str:
    """Remove quotations from the item, which reveal nothing: they repeat its text, or may be on its images.

    A label in quotation marks does not count as a quotation.
    """
    item_text = _normalise_item_text(sample)
    names = {name for label in sample.labels for name in _names(label)}

    def replace(quote: re.Match[str]) -> str:
        text = _plain(quote[1])
        return "“”" if text not in names and (text in item_text or sample.images) else quote[0]

    return _QUOTED.sub(replace, reason)


def _measure_own_share(reason: str, sample: Sample, words: ReasonWords) -> float:
    """Return the share of words in the language's script, without quotations and words from the item."""
    if not words.scripts:
        return 1.0
    own = foreign = 0.0
    for word in re.findall(r"[^\W\d_]+", _QUOTED.sub(" ", reason)):
        for script, letters in _split_scripts(word):
            spaced = script in _SPACED
            weight = 1.0 if spaced else len(letters) / _CHARS_A_WORD
            if script in words.scripts:
                own += weight
            elif script != "LATIN":
                foreign += _NEVER_A_NAME * weight
            # single letters, abbreviations (APP) and words from the item are allowed in every language
            elif len(letters) > 1 and not letters.isupper() and letters.lower() not in _normalise_item_text(sample):
                foreign += weight
    return own / (own + foreign) if own + foreign else 1.0


def _split_scripts(word: str) -> Iterator[tuple[str, str]]:
    """Return the runs of letters of one script in `word`, each as (script, letters)."""
    runs = groupby(word, key=lambda letter: unicodedata.name(letter, "").partition(" ")[0])
    return ((script, "".join(letters)) for script, letters in runs)
