# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (scikit-learn and scipy publish no types)
"""How alike reasons are: near-duplicates, shared openings, and how diverse a set is.

A student that reads the same sentence a hundred times learns the sentence (people who competed: "too alike, and the
score plunges").
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.rationales.settings import NEAR, RationaleSettings
from tasks.rationales.words import BadReason

_STRETCH = 20_000
"""Reasons compared with each other by `crowded_out`: 8 s of a busy core."""
_BLOCK = 512
"""Reasons compared with as many others at a time: its square bounds memory, however many of them are alike."""

_OPENING_CHARS = 6
"""Characters (letters and digits) that are an opening."""
_OPENING_FEW = 3
"""This many of a class may always begin alike, whatever `opening_share` says; of the whole set three times as many."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_UNITS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_OPENING_UNITS = 4
"""Units that two reasons share when they open alike."""
_SHOWN = 8

_Rows = NDArray[np.intp]
K = TypeVar("K")


@dataclass(frozen=True)
class Worded:
    """A reason and the class it speaks for; `text` has its labels marked (gate.mark_labels)."""

    text: str
    label: str


@dataclass(frozen=True)
class Diversity:
    """Figures of a set of reasons. Made by `measure_diversity`."""

    count: int
    distinct_1: float
    """Different characters / all characters."""
    distinct_2: float
    """Different pairs of neighbouring characters / all pairs."""
    near_duplicates: float
    """Share of the reasons that have a near-duplicate among the others."""
    mean_chars: float
    most_chars: int


def find_alike(
    fresh: Sequence[Worded], standing: Sequence[Worded], settings: RationaleSettings, *, last: bool
) -> dict[int, BadReason]:
    """Return what is wrong with which of `fresh` (by position), beside each other and the settled `standing`.

    ALIKE: a near-duplicate of a standing one, or of two or more others; of a pair only the second. BEGINS_ALIKE: its
    opening is shared by more than a class, or the whole set, may have. All of a crowd are refused, so that all are
    asked for something of their own; the `last` time the first of them stand, as many as are allowed.

    Near-duplicates are found exactly, not by MinHash: at 50 characters its error (0.05 at 128 permutations) is one or
    two characters. Not weighted by rarity (TF-IDF): where all of a class use a template, its words would count for
    nothing. Measured: tests/benchmarks/reasons.py.
    """
    if not fresh:
        return {}
    every = [*standing, *fresh]
    settled = len(standing)
    texts, row_of = _different([_plain(worded.text) for worded in every])
    grams = _Grams(texts, settings.alike)
    first = int(row_of[:settled].max(initial=-1)) + 1
    rows = np.arange(first, len(texts))
    if not last:
        rows = rows[_others(grams, rows, np.bincount(row_of))[rows] < 2]
    places = np.unique(row_of, return_index=True)[1][_standing(grams, first, rows)]
    stand = set(places.tolist())  # of copies the first at most
    bad = {i: BadReason.ALIKE for i in range(settled, len(every)) if i not in stand}
    for i in _crowded_openings(every, settled, bad, settings, last=last):
        bad[i] = BadReason.BEGINS_ALIKE
    return {i - settled: reason for i, reason in sorted(bad.items())}


def crowded_out(worded: Mapping[K, Worded], settings: RationaleSettings) -> set[K]:
    """Return the keys whose reason has to go so that no two of those left are alike; the first of each crowd stay.

    More than 20,000 reasons are compared class by class, a class in stretches of 20,000; beyond that only copies are
    found.
    """
    first: dict[str, K] = {}
    for name, one in worded.items():
        first.setdefault(_plain(one.text), name)
    kept = list(first.values())
    by_label: dict[str, list[K]] = defaultdict(list)
    for name in kept:
        by_label[worded[name].label if len(kept) > _STRETCH else ""].append(name)
    gone = set(worded) - set(kept)
    for names in by_label.values():
        for start in range(0, len(names), _STRETCH):
            stretch = names[start : start + _STRETCH]
            bad = find_alike([worded[name] for name in stretch], [], settings, last=True)
            gone |= {stretch[i] for i in bad}
    return gone


def measure_diversity(texts: Sequence[str], near: float = NEAR) -> Diversity:
    """Measure `texts`; all figures are zero for none.

    Distinct-n: Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models" (NAACL 2016), here
    of characters, so that it needs no word boundaries. It falls as a set grows: compare sets of one size only.
    """
    if not texts:
        return Diversity(0, 0.0, 0.0, 0.0, 0.0, 0)
    plain = [_plain(text) for text in texts]
    different, row_of = _different(plain)
    copies = np.bincount(row_of)
    twins = _others(_Grams(different, near), np.arange(len(different)), copies) > 0
    lengths = [len(text) for text in texts]
    return Diversity(
        count=len(texts),
        distinct_1=_distinct(plain, 1),
        distinct_2=_distinct(plain, 2),
        near_duplicates=int(copies[twins].sum()) / len(texts),
        mean_chars=sum(lengths) / len(texts),
        most_chars=max(lengths),
    )


class _Grams:
    """The character bigrams of plain texts, a row each, and which texts are near: Jaccard index >= `least`."""

    def __init__(self, texts: Sequence[str], least: float) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer  # takes 1 s

        options: dict[str, Any] = {"norm": None, "dtype": np.float32, "alternate_sign": False, "lowercase": False}
        counter = HashingVectorizer(analyzer="char", ngram_range=(2, 2), n_features=2**18, binary=True, **options)
        # a mark at the end gives a text of one character a bigram
        self._grams: Any = counter.transform([f"{text}\3" for text in texts])
        self._sizes = np.asarray(self._grams.sum(axis=1)).ravel()
        self._least = least
        self.count = len(texts)

    def near(self, rows: _Rows, columns: _Rows) -> tuple[_Rows, _Rows]:
        """Where in `rows` and where in `columns` a near pair's texts are; a text is near itself."""
        common = (self._grams[rows] @ self._grams[columns].T).tocoo()
        sizes = self._sizes[rows][common.row] + self._sizes[columns][common.col]
        near = common.data / (sizes - common.data) >= self._least - 1e-6
        return common.row[near], common.col[near]


def _others(grams: _Grams, rows: _Rows, copies: _Rows) -> _Rows:
    """How many others each of `rows` (ascending) is near to among them, copies counted; by row."""
    others = copies - 1
    for block in _blocks(rows):
        for later in _blocks(rows[rows >= block[0]]):
            at, to = grams.near(block, later)
            a, b = block[at], later[to]
            once = a < b
            np.add.at(others, a[once], copies[b[once]])
            np.add.at(others, b[once], copies[a[once]])
    return others


def _standing(grams: _Grams, first: int, rows: _Rows) -> NDArray[np.bool_]:
    """By row, whether it stands: all before `first`; then of `rows` (ascending) each that is near none that stands."""
    stands = np.arange(grams.count) < first
    for block in _blocks(rows):
        left = block
        for earlier in _blocks(np.flatnonzero(stands)):
            left = np.delete(left, grams.near(left, earlier)[0])
        near = np.zeros((len(left), len(left)), dtype=np.bool_)
        near[grams.near(left, left)] = True
        for i, row in enumerate(left):
            stands[row] = not (near[i, :i] & stands[left[:i]]).any()
    return stands


def _blocks(rows: _Rows) -> Iterator[_Rows]:
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


def _different(texts: Sequence[str]) -> tuple[list[str], _Rows]:
    """The different texts in order of appearance, and for each text which of them (which row) it is."""
    rows: dict[str, int] = {}
    row_of = [rows.setdefault(text, len(rows)) for text in texts]
    return list(rows), np.array(row_of, dtype=np.intp)


def _crowded_openings(
    every: Sequence[Worded], settled: int, gone: dict[int, BadReason], settings: RationaleSettings, *, last: bool
) -> Iterator[int]:
    """Positions from `settled` on whose opening too many share; the `last` time the first ones stand."""
    by_opening: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, worded in enumerate(every):
        if i not in gone:
            opening = _plain(worded.text)[:_OPENING_CHARS]
            by_opening[opening, worded.label].append(i)
            by_opening[opening, ""].append(i)
    sizes = Counter(w.label for w in every) + Counter({"": len(every)})
    crowded: set[int] = set()
    for (_, label), members in by_opening.items():
        share, few = settings.opening_share, _OPENING_FEW
        if not label:
            share, few = settings.opening_share / 2, 3 * _OPENING_FEW
        allowed = max(few, int(share * sizes[label]))
        if len(members) > allowed:
            crowded |= set(members[allowed if last else 0 :])
    yield from sorted(i for i in crowded if i >= settled)


def _plain(text: str) -> str:
    """Letters and digits only, NFKC, lower case: a comma more is no difference."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).lower())


def _distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct-n of texts cut into characters or words: different n-grams / all n-grams, 0 for none."""
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


# --- for the card: whole reasons, in units of characters or words ----------------------------------------------


@dataclass(frozen=True)
class Variety:
    """What the card shows of a set of reasons. Made by `measure_variety`."""

    reasons: int
    distinct: tuple[float, float, float]
    """Distinct-1 to -3."""
    repeated: float
    """Share of reasons that say word for word what an earlier one says."""
    openings: tuple[tuple[str, int], ...]
    """The commonest openings that more than one reason shares, with how many share each."""
    lengths: Counter[int]
    """Reasons by length in characters."""


def measure_variety(reasons: Sequence[str]) -> Variety:
    """Measure `reasons`, at least one."""
    units = [_UNITS.findall(reason) for reason in reasons]
    openings: Counter[tuple[str, ...]] = Counter(tuple(u[:_OPENING_UNITS]) for u in units if len(u) >= _OPENING_UNITS)
    first: dict[tuple[str, ...], str] = {}
    for reason, found in zip(reasons, units, strict=True):
        first.setdefault(tuple(found[:_OPENING_UNITS]), reason)
    shared = [(_beginning(first[o], o), n) for o, n in openings.most_common(_SHOWN) if n > 1]
    return Variety(
        reasons=len(reasons),
        distinct=(_distinct(units, 1), _distinct(units, 2), _distinct(units, 3)),
        repeated=1 - len(set(reasons)) / len(reasons),
        openings=tuple(shared),
        lengths=Counter(map(len, reasons)),
    )


def _beginning(reason: str, opening: Sequence[str]) -> str:
    """The reason up to the end of the opening's last unit, as it is written."""
    place = 0
    for unit in opening:
        place = reason.index(unit, place) + len(unit)
    return reason[:place]
