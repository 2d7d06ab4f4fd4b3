"""How sure the teacher is of its pseudo-labels, and how sure the run is of them, counted by steps from 0 to 1."""

from dataclasses import dataclass
from pathlib import Path

from tasks.pseudo_labels.decide import KEEPS
from tasks.pseudo_labels.evidence import Evidence
from tasks.report.card.rows import rows_of

BINS = 20


@dataclass(frozen=True)
class Step:
    """The pseudo-labels of one step of a histogram."""

    count: int = 0
    kept: int = 0
    own: float = 0.0
    """Sum of the teacher's own probabilities (or shares of votes)."""
    expected: float = 0.0
    """Sum of the expected precisions."""

    def plus(self, kept: bool, own: float, expected: float) -> "Step":
        """With one more pseudo-label."""
        return Step(self.count + 1, self.kept + kept, self.own + own, self.expected + expected)


@dataclass(frozen=True)
class Confidence:
    """The pool's pseudo-labels. Both are empty where there are none."""

    own: tuple[Step, ...] = ()
    """By the teacher's own word, BINS steps."""
    expected: tuple[Step, ...] = ()
    """By expected precision."""


def confidence_of(stage: Path) -> Confidence:
    """Read trust.parquet of the stage pseudo_labels; labels of which nothing is known are left out."""
    own, expected = [Step()] * BINS, [Step()] * BINS
    for row in rows_of(stage / "trust.parquet", "decision", "expected", "evidence"):
        said = Evidence.model_validate_json(row["evidence"] or "{}").confidence
        if said is not None and row["expected"] is not None:
            kept, known = row["decision"] in KEEPS, row["expected"]
            own[_bin(said)] = own[_bin(said)].plus(kept, said, known)
            expected[_bin(known)] = expected[_bin(known)].plus(kept, said, known)
    return Confidence(tuple(own), tuple(expected)) if any(step.count for step in own) else Confidence()


def _bin(value: float) -> int:
    return min(int(value * BINS), BINS - 1)
