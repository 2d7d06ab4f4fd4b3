"""How varied reasons are: shares of different n-grams, repeats, shared openings.

Distinct-n is the number of different n-grams over all of them (Li et al. 2016, arXiv:1510.03055). An n-gram's unit is a
character of Chinese, Japanese or Korean, and a word of what is written with spaces.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_UNITS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_OPENING = 4
"""Units that two reasons share when they open alike."""
_SHOWN = 8


@dataclass(frozen=True)
class Diversity:
    """What a set of reasons is like."""

    reasons: int
    distinct: tuple[float, float, float]
    """Distinct-1 to -3."""
    repeated: float
    """Share of reasons that say word for word what an earlier one says."""
    openings: tuple[tuple[str, int], ...]
    """The commonest openings that more than one reason shares, with how many share each."""
    lengths: Counter[int]
    """Reasons by length in characters."""


def diversity_of(reasons: Sequence[str]) -> Diversity:
    """Measure `reasons`, at least one."""
    units = [_UNITS.findall(reason) for reason in reasons]
    distinct = tuple(_distinct(units, n) for n in (1, 2, 3))
    openings: Counter[tuple[str, ...]] = Counter(tuple(u[:_OPENING]) for u in units if len(u) >= _OPENING)
    first: dict[tuple[str, ...], str] = {}
    for reason, found in zip(reasons, units, strict=True):
        first.setdefault(tuple(found[:_OPENING]), reason)
    shared = [(_beginning(first[o], o), n) for o, n in openings.most_common(_SHOWN) if n > 1]
    repeated = 1 - len(set(reasons)) / len(reasons)
    return Diversity(
        len(reasons), (distinct[0], distinct[1], distinct[2]), repeated, tuple(shared), Counter(map(len, reasons))
    )


def _distinct(units: Sequence[Sequence[str]], n: int) -> float:
    grams: set[tuple[str, ...]] = set()
    total = 0
    for found in units:
        total += max(len(found) - n + 1, 0)
        grams.update(tuple(found[i : i + n]) for i in range(len(found) - n + 1))
    return len(grams) / total if total else 1.0


def _beginning(reason: str, opening: Sequence[str]) -> str:
    """The reason up to the end of the opening's last unit, as it is written."""
    place = 0
    for unit in opening:
        place = reason.index(unit, place) + len(unit)
    return reason[:place]
