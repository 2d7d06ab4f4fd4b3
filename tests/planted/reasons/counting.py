"""What all sets of planted reasons are made of, and how a gate's verdicts on one are counted."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tasks.records import Sample

GOOD, EACH = 600, 100
"""Good reasons of a set, and bad ones of a kind."""


class BadKind(StrEnum):
    """What is wrong with a reason."""

    LEAKAGE = "leakage"
    OTHER_LABEL = "other_label"
    EMPTY = "empty"
    LANGUAGE = "language"
    LENGTH = "length"
    ALIKE = "alike"


@dataclass(frozen=True)
class Planted:
    """A reason for a sample's label; `kind` is None when it is good, `family` is set for the alike ones only."""

    sample: Sample
    label: str
    reason: str
    kind: BadKind | None
    family: int | None = None


def judge(items: Sequence[Planted], refused: Collection[str]) -> tuple[list[Planted], list[Planted]]:
    """Bad ones that passed and good ones that were stopped, given the ids of the refused samples.

    One of each family may pass.
    """
    passed = [item for item in items if item.kind and item.sample.id not in refused]
    alone = {item.family: item.sample.id for item in passed if item.family is not None}
    missed = [item for item in passed if item.family is None or alone[item.family] != item.sample.id]
    return missed, [item for item in items if item.kind is None and item.sample.id in refused]


def pairs(text: str) -> frozenset[str]:
    """The pairs of neighbouring characters."""
    return frozenset(text[i : i + 2] for i in range(len(text) - 1))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Common ones among all, 0 … 1."""
    both = len(a & b)
    return both / max(1, len(a) + len(b) - both)
