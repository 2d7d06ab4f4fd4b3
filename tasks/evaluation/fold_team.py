"""The run's fold students as one model: their adapters fused, or the mean of their probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.records import USABLE, Outcome, Prediction


@dataclass(frozen=True)
class FoldTeam:
    """The fold students of one repeat."""

    seed: int
    """The run's seed, plus the number of the repeat."""
    folders: tuple[Path, ...]
    """The folder of each student."""
    fused: Path
    """The folder of their fused adapter."""


def average_answers(sample_ids: Sequence[str], answers: Sequence[Mapping[str, Prediction]]) -> dict[str, Prediction]:
    """Map each item id to the label with the highest mean probability; `answers` has one mapping per student.

    An answer without probabilities counts as certain of its label, and one that could not be read does not count.
    """
    found: dict[str, Prediction] = {}
    for sample_id in sample_ids:
        usable = [given[sample_id] for given in answers if given[sample_id].outcome in USABLE]
        shares = [p.probabilities or {p.label or "": 1.0} for p in usable]
        labels = dict.fromkeys(label for share in shares for label in share)
        means = {label: sum(share.get(label, 0.0) for share in shares) / len(shares) for label in labels}
        found[sample_id] = Prediction(
            sample_id=sample_id,
            source="ensemble",
            outcome=Outcome.OK if means else answers[0][sample_id].outcome,
            label=max(means, key=means.__getitem__, default=None),
            probabilities=means,
        )
    return found
