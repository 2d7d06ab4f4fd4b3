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
from typing import Any

import numpy as np

from tasks.wording import BadReason

NEAR = 0.5
"""Jaccard index of two reasons' character bigrams from which on they are near-duplicates: a word of two characters in
13 differs, or two such words in 25: a template with other things in it. At 0.7 one in eight of planted ones got by."""
_STRETCH = 20_000
"""Reasons compared with each other by `crowded_out`: 8 s of a busy core."""
_BLOCK = 512
"""Reasons compared with the others at a time; bounds memory to 512 × reasons."""


@dataclass(frozen=True)
class Worded:
    """A reason and the class it speaks for; `text` has its labels marked (reason_text.marked)."""

    text: str
    label: str


@dataclass(frozen=True)
class Crowds:
    """What counts as too alike. Made from the settings; read by `find_alike`."""

    near: float = NEAR
    opening_chars: int = 6
    """Characters (letters and digits) that are an opening."""
    opening_share: float = 0.1
    """The largest share of a class that may begin alike, but always `opening_few`; of the whole set half that share,
    but always three times as many."""
    opening_few: int = 3


@dataclass(frozen=True)
class Diversity:
    """Figures of a set of reasons. Made by `diversity`."""

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
    fresh: Sequence[Worded], standing: Sequence[Worded], crowds: Crowds, *, last: bool
) -> dict[int, BadReason]:
    """What is wrong with which of `fresh` (by position) beside each other and beside `standing`, which is settled.

    ALIKE: a near-duplicate of a standing one, or of two or more others; of a pair only the second. BEGINS_ALIKE: its
    opening is shared by more than a class, or the whole set, may have. All of a crowd are refused, so that all are
    asked for something of their own; the `last` time the first of them stand, as many as are allowed.
    """
    every = [*standing, *fresh]
    settled = len(standing)
    near: dict[int, list[int]] = defaultdict(list)
    for a, b in near_pairs([w.text for w in every], crowds.near):
        near[a].append(b)
        near[b].append(a)
    bad: dict[int, BadReason] = {}
    for i in range(settled, len(every)):
        earlier = [j for j in near[i] if j < i and j not in bad]
        if earlier or (len(near[i]) > 1 and not last):
            bad[i] = BadReason.ALIKE
    for i in _crowded_openings(every, settled, bad, crowds, last=last):
        bad[i] = BadReason.BEGINS_ALIKE
    return {i - settled: reason for i, reason in sorted(bad.items())}


def crowded_out(worded: Mapping[str, Worded], crowds: Crowds) -> set[str]:
    """The ids whose reason has to go so that no two of those left are alike; the first of each crowd stay.

    More than 20,000 reasons are compared class by class, a class in stretches of 20,000; beyond that only copies are
    found.
    """
    first: dict[str, str] = {}
    for name, one in worded.items():
        first.setdefault(_plain(one.text), name)
    kept = list(first.values())
    by_label: dict[str, list[str]] = defaultdict(list)
    for name in kept:
        by_label[worded[name].label if len(kept) > _STRETCH else ""].append(name)
    gone = set(worded) - set(kept)
    for names in by_label.values():
        for start in range(0, len(names), _STRETCH):
            stretch = names[start : start + _STRETCH]
            bad = find_alike([worded[name] for name in stretch], [], crowds, last=True)
            gone |= {stretch[i] for i in bad}
    return gone


def diversity(texts: Sequence[str], near: float = NEAR) -> Diversity:
    """The figures of `texts`, all zero for none.

    Distinct-n: Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models" (NAACL 2016), here
    of characters, so that it needs no word boundaries. It falls as a set grows: compare sets of one size only.
    """
    if not texts:
        return Diversity(0, 0.0, 0.0, 0.0, 0.0, 0)
    plain = [_plain(text) for text in texts]
    twins = {i for pair in near_pairs(plain, near) for i in pair}
    lengths = [len(text) for text in texts]
    return Diversity(
        count=len(texts),
        distinct_1=_distinct(plain, 1),
        distinct_2=_distinct(plain, 2),
        near_duplicates=len(twins) / len(texts),
        mean_chars=sum(lengths) / len(texts),
        most_chars=max(lengths),
    )


def near_pairs(texts: Sequence[str], least: float) -> list[tuple[int, int]]:
    """Pairs of positions (the lower first, ascending) of texts whose character bigrams have a Jaccard index >= `least`.

    Exact, not by MinHash: at 50 characters its error (0.05 at 128 permutations) is one or two characters. Of equal
    texts each is paired with every other one up to 50 copies, beyond that with the first 50. Not weighted by rarity
    (TF-IDF): where all of a class use a template, its words would count for
    nothing. Measured: tests/benchmarks/reasons.py.
    """
    copies: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        copies[_plain(text)].append(i)
    pairs = {(first, i) for same in copies.values() for at, i in enumerate(same) for first in same[: min(at, _COPIES)]}
    different = list(copies)
    for a, b in _near(different, least):
        for i in copies[different[a]][:_COPIES]:
            pairs |= {(min(i, j), max(i, j)) for j in copies[different[b]][:_COPIES]}
    return sorted(pairs)


_COPIES = 50


def _near(texts: Sequence[str], least: float) -> Iterator[tuple[int, int]]:
    """Pairs of rows of different plain texts."""
    if len(texts) < 2:
        return
    from sklearn.feature_extraction.text import HashingVectorizer  # 1 s, and the settings import this room

    options: dict[str, Any] = {"norm": None, "dtype": np.float32, "alternate_sign": False, "lowercase": False}
    counter = HashingVectorizer(analyzer="char", ngram_range=(2, 2), n_features=2**18, binary=True, **options)
    # a mark at the end gives a text of one character a bigram
    grams: Any = counter.transform([f"{text}\3" for text in texts])
    sizes = np.asarray(grams.sum(axis=1)).ravel()
    for start in range(0, len(texts), _BLOCK):
        stop = min(start + _BLOCK, len(texts))
        common = (grams[start:stop] @ grams.T).tocoo()
        a, b = common.row + start, common.col
        jaccard = common.data / (sizes[a] + sizes[b] - common.data)
        alike = (a < b) & (jaccard >= least - 1e-6)
        yield from zip(a[alike].tolist(), b[alike].tolist(), strict=True)


def _crowded_openings(
    every: Sequence[Worded], settled: int, gone: dict[int, BadReason], crowds: Crowds, *, last: bool
) -> Iterator[int]:
    """Positions from `settled` on whose opening too many share; the `last` time the first ones stand."""
    by_opening: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, worded in enumerate(every):
        if i not in gone:
            opening = _plain(worded.text)[: crowds.opening_chars]
            by_opening[opening, worded.label].append(i)
            by_opening[opening, ""].append(i)
    sizes = Counter(w.label for w in every) + Counter({"": len(every)})
    crowded: set[int] = set()
    for (_, label), members in by_opening.items():
        share, few = crowds.opening_share, crowds.opening_few
        if not label:
            share, few = crowds.opening_share / 2, 3 * crowds.opening_few
        allowed = max(few, int(share * sizes[label]))
        if len(members) > allowed:
            crowded |= set(members[allowed if last else 0 :])
    yield from sorted(i for i in crowded if i >= settled)


def _plain(text: str) -> str:
    """Letters and digits only, NFKC, lower case: a comma more is no difference."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).lower())


def _distinct(texts: Sequence[str], n: int) -> float:
    grams = [text[i : i + n] for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
