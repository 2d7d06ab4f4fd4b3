"""Measure how similar reasons are: near-duplicates, shared openings, and the diversity of a set.

A student that reads the same sentence a hundred times learns the sentence; participants of the challenge reported that
their scores dropped when reasons were too similar.
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
"""Maximum reasons that `find_crowded_out` compares with each other: 8 s of one core."""
_BLOCK = 512
"""Reasons compared with as many others at a time: its square bounds memory, however many are similar."""

_OPENING_CHARS = 6
"""Characters (letters and digits) of an opening."""
_OPENING_FEW = 3
"""Reasons of a class that may always share an opening, whatever `opening_share` is; three times as many in the set."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_UNITS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_OPENING_UNITS = 4
"""Units (CJK characters or words) of an opening on the card."""
_SHOWN = 8

_Rows = NDArray[np.intp]
K = TypeVar("K")


@dataclass(frozen=True)
class MarkedReason:
    """A reason and the label that it explains; in `text`, marks replace labels (`gate.mark_labels`)."""

    text: str
    label: str


@dataclass(frozen=True)
class Diversity:
    """The diversity of a set of reasons. Made by `measure_diversity`."""

    count: int
    distinct_1: float
    """Number of different characters, divided by the number of all characters."""
    distinct_2: float
    """The same for pairs of neighbouring characters."""
    near_duplicates: float
    """Share of the reasons that have a near-duplicate among the others."""
    mean_chars: float
    most_chars: int


def find_alike(
    fresh: Sequence[MarkedReason], accepted: Sequence[MarkedReason], settings: RationaleSettings, *, last: bool
) -> dict[int, BadReason]:
    """Find `fresh` reasons that are too similar to each other or to `accepted` ones; map position to fault.

    ALIKE: the reason is a near-duplicate of an accepted reason, or of two or more others. Of two reasons that are
    near-duplicates only of each other, the second is refused. BEGINS_ALIKE: more reasons of its class, or of the whole
    set, share its opening than are allowed. All fresh members of such a group are refused, so that each is asked again;
    at the `last` attempt, the first ones are accepted, as many as are allowed.

    Near-duplicates are found exactly, not by MinHash, whose error of 0.05 (at 128 permutations) means one or two
    characters of 50. Bigrams are not weighted by rarity (TF-IDF): if a whole class used a template, its words would
    count for nothing. Measured by tests/benchmarks/reasons.py.
    """
    if not fresh:
        return {}
    every = [*accepted, *fresh]
    settled = len(accepted)
    texts, row_of = _find_distinct_texts([_plain(worded.text) for worded in every])
    grams = _Grams(texts, settings.alike)
    first = int(row_of[:settled].max(initial=-1)) + 1
    rows = np.arange(first, len(texts))
    if not last:
        rows = rows[_count_others(grams, rows, np.bincount(row_of))[rows] < 2]
    places = np.unique(row_of, return_index=True)[1][_accept(grams, first, rows)]
    kept = set(places.tolist())  # the first of equal texts at most
    bad = {i: BadReason.ALIKE for i in range(settled, len(every)) if i not in kept}
    for i in _find_crowded_openings(every, settled, bad, settings, last=last):
        bad[i] = BadReason.BEGINS_ALIKE
    return {i - settled: reason for i, reason in sorted(bad.items())}


def find_crowded_out(worded: Mapping[K, MarkedReason], settings: RationaleSettings) -> set[K]:
    """Return the keys of reasons to remove, so that no two of the others are too similar; the first ones are kept.

    If there are more than 20,000 reasons, they are compared class by class, in blocks of 20,000; across classes and
    blocks, only exact copies are found.
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
    """Measure the diversity of `texts`; if there are none, all figures are zero.

    Distinct-n: Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models" (NAACL 2016), here
    over characters, so that no word boundaries are needed. It falls as a set grows: compare sets of equal size only.
    """
    if not texts:
        return Diversity(0, 0.0, 0.0, 0.0, 0.0, 0)
    plain = [_plain(text) for text in texts]
    different, row_of = _find_distinct_texts(plain)
    copies = np.bincount(row_of)
    twins = _count_others(_Grams(different, near), np.arange(len(different)), copies) > 0
    lengths = [len(text) for text in texts]
    return Diversity(
        count=len(texts),
        distinct_1=_measure_distinct(plain, 1),
        distinct_2=_measure_distinct(plain, 2),
        near_duplicates=int(copies[twins].sum()) / len(texts),
        mean_chars=sum(lengths) / len(texts),
        most_chars=max(lengths),
    )


class _Grams:
    """The character bigrams of texts, one row per text; two texts are near if their Jaccard index is >= `least`."""

    def __init__(self, texts: Sequence[str], least: float) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer  # takes 1 s

        options: dict[str, Any] = {"norm": None, "dtype": np.float32, "alternate_sign": False, "lowercase": False}
        counter = HashingVectorizer(analyzer="char", ngram_range=(2, 2), n_features=2**18, binary=True, **options)
        # the end mark gives a text of one character a bigram
        self._grams: Any = counter.transform([f"{text}\3" for text in texts])
        self._sizes = np.asarray(self._grams.sum(axis=1)).ravel()
        self._least = least
        self.count = len(texts)

    def near(self, rows: _Rows, columns: _Rows) -> tuple[_Rows, _Rows]:
        """Return the positions in `rows` and in `columns` of each near pair; a text is near itself."""
        common = (self._grams[rows] @ self._grams[columns].T).tocoo()
        sizes = self._sizes[rows][common.row] + self._sizes[columns][common.col]
        near = common.data / (sizes - common.data) >= self._least - 1e-6
        return common.row[near], common.col[near]


def _count_others(grams: _Grams, rows: _Rows, copies: _Rows) -> _Rows:
    """Return, by row, how many others among `rows` (ascending) each is near to; copies count."""
    others = copies - 1
    for block in _blocks(rows):
        for later in _blocks(rows[rows >= block[0]]):
            at, to = grams.near(block, later)
            a, b = block[at], later[to]
            once = a < b
            np.add.at(others, a[once], copies[b[once]])
            np.add.at(others, b[once], copies[a[once]])
    return others


def _accept(grams: _Grams, first: int, rows: _Rows) -> NDArray[np.bool_]:
    """Return, by row, whether it is accepted: all before `first`, then each of `rows` that is near no accepted one."""
    accepted = np.arange(grams.count) < first
    for block in _blocks(rows):
        left = block
        for earlier in _blocks(np.flatnonzero(accepted)):
            left = np.delete(left, grams.near(left, earlier)[0])
        near = np.zeros((len(left), len(left)), dtype=np.bool_)
        near[grams.near(left, left)] = True
        for i, row in enumerate(left):
            accepted[row] = not (near[i, :i] & accepted[left[:i]]).any()
    return accepted


def _blocks(rows: _Rows) -> Iterator[_Rows]:
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


def _find_distinct_texts(texts: Sequence[str]) -> tuple[list[str], _Rows]:
    """Return the distinct texts in order of appearance, and the index of each text among them."""
    rows: dict[str, int] = {}
    row_of = [rows.setdefault(text, len(rows)) for text in texts]
    return list(rows), np.array(row_of, dtype=np.intp)


def _find_crowded_openings(
    every: Sequence[MarkedReason], settled: int, gone: dict[int, BadReason], settings: RationaleSettings, *, last: bool
) -> Iterator[int]:
    """Yield positions from `settled` on whose opening too many share; at the `last` attempt the first ones are kept."""
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
    """Return letters and digits only, NFKC, lower case, so that punctuation makes no difference."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).lower())


def _measure_distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Return distinct n-grams / all n-grams of texts given as characters or words; 0 if there are none."""
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


# --- for the card: whole reasons, in units of characters or words ----------------------------------------------


@dataclass(frozen=True)
class Variety:
    """The figures that the card shows about a set of reasons. Made by `measure_variety`."""

    reasons: int
    distinct: tuple[float, float, float]
    """Distinct-1 to distinct-3."""
    repeated: float
    """Share of reasons that are copies of an earlier one."""
    openings: tuple[tuple[str, int], ...]
    """The most common openings that several reasons share, each with the number of these reasons."""
    lengths: Counter[int]
    """Maps a length in characters to the number of reasons of that length."""


def measure_variety(reasons: Sequence[str]) -> Variety:
    """Return the figures about `reasons`, which must not be empty."""
    units = [_UNITS.findall(reason) for reason in reasons]
    openings: Counter[tuple[str, ...]] = Counter(tuple(u[:_OPENING_UNITS]) for u in units if len(u) >= _OPENING_UNITS)
    first: dict[tuple[str, ...], str] = {}
    for reason, found in zip(reasons, units, strict=True):
        first.setdefault(tuple(found[:_OPENING_UNITS]), reason)
    shared = [(_beginning(first[o], o), n) for o, n in openings.most_common(_SHOWN) if n > 1]
    return Variety(
        reasons=len(reasons),
        distinct=(_measure_distinct(units, 1), _measure_distinct(units, 2), _measure_distinct(units, 3)),
        repeated=1 - len(set(reasons)) / len(reasons),
        openings=tuple(shared),
        lengths=Counter(map(len, reasons)),
    )


def _beginning(reason: str, opening: Sequence[str]) -> str:
    """Return the beginning of the reason up to the last unit of its opening, as written."""
    place = 0
    for unit in opening:
        place = reason.index(unit, place) + len(unit)
    return reason[:place]
