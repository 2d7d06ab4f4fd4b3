"""How sure the teacher is of its pseudo-labels, and how sure the run is of them, counted by steps from 0 to 1."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from tasks.report.card_rows import rows_of

BINS = 20
_KEPT = ("kept", "reviewed")
"""Decisions of tasks/trust.py that keep a pseudo-label."""


@dataclass(frozen=True)
class Step:
    """The pseudo-labels of one step of a histogram."""

    count: int = 0
    kept: int = 0
    own: float = 0.0
    """Sum of the teacher's own probabilities (or shares of votes)."""
    expected: float = 0.0
    """Sum of the expected precisions, where they are known."""

    def plus(self, kept: bool, own: float, expected: float) -> "Step":
        """With one more pseudo-label."""
        return Step(self.count + 1, self.kept + kept, self.own + own, self.expected + expected)


@dataclass(frozen=True)
class Confidence:
    """The pool's pseudo-labels. Both are empty where there are none."""

    own: tuple[Step, ...] = ()
    """By the teacher's own word, BINS steps."""
    expected: tuple[Step, ...] = ()
    """By expected precision, as calibrated on the labelled set; empty where that was not done."""


def confidence_of(stage: Path) -> Confidence:
    """Read the folder of the stage pseudo_labels; what it has not is empty."""
    own, expected = [Step()] * BINS, [Step()] * BINS
    for kept, said, known in _trusted(stage / "trust.parquet"):
        own[_bin(said)] = own[_bin(said)].plus(kept, said, known)
        expected[_bin(known)] = expected[_bin(known)].plus(kept, said, known)
    if any(step.count for step in own):
        return Confidence(tuple(own), tuple(expected))
    for said in _answers(stage / "predictions.parquet"):
        own[_bin(said)] = own[_bin(said)].plus(False, said, 0.0)
    for said in _answers(stage / "kept.parquet"):
        own[_bin(said)] = replace(own[_bin(said)], kept=own[_bin(said)].kept + 1)
    return Confidence(tuple(own)) if any(step.count for step in own) else Confidence()


def _trusted(file: Path) -> Iterator[tuple[bool, float, float]]:
    """(kept, own confidence, expected precision) of every pseudo-label that has them."""
    for row in rows_of(file, "decision", "expected", "evidence"):
        evidence = orjson.loads(row["evidence"] or "{}")
        own = evidence.get("probability")
        own = evidence.get("vote_share") if own is None else own
        if own is not None and row["expected"] is not None:
            yield row["decision"] in _KEPT, own, row["expected"]


def _answers(file: Path) -> Iterator[float]:
    """The own confidence of every label."""
    for row in rows_of(file, "label", "probabilities", "votes"):
        if row["label"] is not None:
            said = orjson.loads(row["probabilities"] or "{}") or _shares(orjson.loads(row["votes"] or "{}"))
            yield said.get(row["label"], 0.0)


def _shares(votes: Mapping[str, int]) -> dict[str, float]:
    return {label: n / sum(votes.values()) for label, n in votes.items()}


def _bin(value: float) -> int:
    return min(int(value * BINS), BINS - 1)
