"""Compare a demo run with the true labels, which the pipeline itself never reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.evaluation.test_set import read_truth
from tasks.records import Action, Correction, Prediction
from tasks.storage.rows import read_rows


@dataclass(frozen=True)
class Found:
    """How well a group of suspected items matches the items whose given label is wrong."""

    count: int
    precision: float
    recall: float

    def __str__(self) -> str:
        return f"{self.count}, precision {self.precision:.1%}, recall {self.recall:.1%}"


@dataclass(frozen=True)
class DemoFigures:
    """What a demo run achieved, compared with the truth. Shares are between 0 and 1."""

    teacher_accuracy: float
    """Share of the pool for which the teacher's label is correct."""
    pool: int
    kept_pseudo: int
    kept_precision: float
    planted: int
    """Number of wrong given labels, counting only items that the intake accepted."""
    disagreements: Found
    adjudicated: Found
    """Items for which the teacher gave another label; it was not shown the given one."""
    held_wrong: Found
    """Items whose given label is probably wrong (P(given) < 0.5) according to students and teacher."""
    changed: int
    changed_right: int
    changed_unreviewed: int
    changed_unreviewed_right: int
    reviewed: int
    label_accuracy_before: float
    label_accuracy_after: float


def evaluate_demo(output: Path, truth_file: Path) -> DemoFigures:
    """Compare the run in `output` with the true labels; raises FileNotFoundError if a stage has no results."""
    truth = read_truth(truth_file)
    predictions = read_rows(output / "pseudo_labels" / "predictions.parquet", Prediction)
    kept = read_rows(output / "pseudo_labels" / "kept.parquet", Prediction)
    cases = read_rows(output / "correction" / "kept.parquet", Correction)
    planted = {c.sample_id for c in cases if c.given != truth[c.sample_id]}

    def compare(suspected: Iterable[Correction]) -> Found:
        ids = {c.sample_id for c in suspected}
        hits = len(ids & planted)
        return Found(len(ids), hits / max(len(ids), 1), hits / max(len(planted), 1))

    def count_right(items: Iterable[Correction | Prediction]) -> int:
        return sum(item.label == truth[item.sample_id] for item in items)

    changed = [c for c in cases if c.action is Action.RELABEL]
    unreviewed = [c for c in changed if not c.reviewed]
    after = [c for c in cases if c.label is not None]
    return DemoFigures(
        teacher_accuracy=count_right(predictions) / max(len(predictions), 1),
        pool=len(predictions),
        kept_pseudo=len(kept),
        kept_precision=count_right(kept) / max(len(kept), 1),
        planted=len(planted),
        disagreements=compare(c for c in cases if c.predicted is not None and c.predicted != c.given),
        adjudicated=compare(c for c in cases if c.adjudicated is not None and c.adjudicated != c.given),
        held_wrong=compare(c for c in cases if c.p_given is not None and c.p_given < 0.5),
        changed=len(changed),
        changed_right=count_right(changed),
        changed_unreviewed=len(unreviewed),
        changed_unreviewed_right=count_right(unreviewed),
        reviewed=sum(c.reviewed for c in cases),
        label_accuracy_before=(len(cases) - len(planted)) / max(len(cases), 1),
        label_accuracy_after=count_right(after) / max(len(after), 1),
    )


def describe(figures: DemoFigures) -> list[tuple[str, str]]:
    """Return the figures as (name, text) pairs for the demo's summary."""
    f = figures
    return [
        (
            "Compared with the truth",
            f"{f.planted} labels were made wrong on purpose; right labels: {f.label_accuracy_before:.1%} before, "
            f"{f.label_accuracy_after:.1%} after",
        ),
        (
            "  labels changed",
            f"{f.changed_right} of {f.changed} changed to the true label; without review {f.changed_unreviewed_right} "
            f"of {f.changed_unreviewed}; {f.reviewed} reviewed by a stand-in that knows the truth",
        ),
        ("  found by students", f"{f.disagreements} (predictions that differ from the given label)"),
        ("  found by the teacher", f"{f.adjudicated} (asked about suspicious labels only)"),
        ("  found by both", f"{f.held_wrong} (probably wrong by all evidence)"),
        (
            "  pseudo-labels",
            f"{f.kept_precision:.1%} of {f.kept_pseudo} kept ones are right; the teacher alone: "
            f"{f.teacher_accuracy:.1%} of {f.pool}",
        ),
    ]
