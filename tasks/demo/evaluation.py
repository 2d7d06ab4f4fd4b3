"""What the demo's run was worth, measured against the truth file that the pipeline itself never reads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from tasks.records import Action, Correction, Prediction
from tasks.storage.rows import read_rows


@dataclass(frozen=True)
class DemoFigures:
    """Figures of a demo run; shares are between 0 and 1."""

    teacher_accuracy: float
    """Of all the pool's items that the teacher was asked about."""
    pool: int
    kept_pseudo: int
    kept_precision: float
    planted: int
    """Wrong labels among the labelled items that passed intake."""
    disagreements: int
    disagreement_precision: float
    disagreement_recall: float
    adjudicated: int
    """Disagreements where the teacher, asked blind, also departs from the given label."""
    adjudicated_precision: float
    adjudicated_recall: float
    held_wrong: int
    """Items whose given label is wrong by students' and teacher's evidence (P(given) < 0.5), verdicts on them aside."""
    held_wrong_precision: float
    held_wrong_recall: float
    changed: int
    changed_right: int
    changed_wrong: int
    changed_unreviewed: int
    changed_unreviewed_right: int
    reviewed: int
    label_accuracy_before: float
    label_accuracy_after: float


def evaluate_demo(output: Path, truth_file: Path) -> DemoFigures:
    """Compare the run under `output` with the truth; raises FileNotFoundError if a stage has left no file."""
    truth = {row["id"]: row for row in map(orjson.loads, truth_file.read_bytes().splitlines())}
    label_of: Mapping[str, str] = {i: row["label"] for i, row in truth.items()}
    predictions = read_rows(output / "pseudo_labels" / "predictions.parquet", Prediction)
    kept = read_rows(output / "pseudo_labels" / "kept.parquet", Prediction)
    cases = read_rows(output / "correction" / "kept.parquet", Correction)
    planted = {c.sample_id for c in cases if c.given != label_of[c.sample_id]}
    disagree = {c.sample_id for c in cases if c.predicted is not None and c.predicted != c.given}
    departs = {c.sample_id for c in cases if c.adjudicated is not None and c.adjudicated != c.given}
    held_wrong = {c.sample_id for c in cases if c.p_given is not None and c.p_given < 0.5}
    changed = [c for c in cases if c.action is Action.RELABEL]
    unreviewed = [c for c in changed if not c.reviewed]
    after = [c for c in cases if c.label is not None]
    return DemoFigures(
        teacher_accuracy=_share(p.label == label_of[p.sample_id] for p in predictions),
        pool=len(predictions),
        kept_pseudo=len(kept),
        kept_precision=_share(p.label == label_of[p.sample_id] for p in kept),
        planted=len(planted),
        disagreements=len(disagree),
        disagreement_precision=len(disagree & planted) / max(len(disagree), 1),
        disagreement_recall=len(disagree & planted) / max(len(planted), 1),
        adjudicated=len(departs),
        adjudicated_precision=len(departs & planted) / max(len(departs), 1),
        adjudicated_recall=len(departs & planted) / max(len(planted), 1),
        held_wrong=len(held_wrong),
        held_wrong_precision=len(held_wrong & planted) / max(len(held_wrong), 1),
        held_wrong_recall=len(held_wrong & planted) / max(len(planted), 1),
        changed=len(changed),
        changed_right=sum(c.label == label_of[c.sample_id] for c in changed),
        changed_wrong=sum(c.label != label_of[c.sample_id] for c in changed),
        changed_unreviewed=len(unreviewed),
        changed_unreviewed_right=sum(c.label == label_of[c.sample_id] for c in unreviewed),
        reviewed=sum(c.reviewed for c in cases),
        label_accuracy_before=_share(c.given == label_of[c.sample_id] for c in cases),
        label_accuracy_after=_share(c.label == label_of[c.sample_id] for c in after),
    )


def describe(figures: DemoFigures) -> str:
    """The figures as lines of text for the terminal and the web UI (Markdown list)."""
    f = figures
    ratio = f"{f.changed_right / f.changed_wrong:.1f}" if f.changed_wrong else "no wrong one"
    return "\n".join(
        [
            f"- teacher on the pool: {f.teacher_accuracy:.1%} of {f.pool} right; "
            f"kept {f.kept_pseudo} pseudo-labels, {f.kept_precision:.1%} of them right",
            f"- planted wrong labels: {f.planted}",
            f"- out-of-fold disagreements: {f.disagreements}, precision {f.disagreement_precision:.1%}, "
            f"recall {f.disagreement_recall:.1%}",
            f"- suspicious labels that the teacher, asked blind, departs from: {f.adjudicated}, "
            f"precision {f.adjudicated_precision:.1%}, recall {f.adjudicated_recall:.1%}",
            f"- held to be wrong by students and teacher together (P(given) < 0.5): {f.held_wrong}, "
            f"precision {f.held_wrong_precision:.1%}, recall {f.held_wrong_recall:.1%}",
            f"- changes applied: {f.changed}: {f.changed_right} right, {f.changed_wrong} wrong "
            f"(right per wrong: {ratio}); without a person: {f.changed_unreviewed}, of them right "
            f"{f.changed_unreviewed_right}; the stand-in reviewer, which knows the truth, judged {f.reviewed}",
            f"- right labels: {f.label_accuracy_before:.1%} before, {f.label_accuracy_after:.1%} after",
        ]
    )


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / max(len(values), 1)
