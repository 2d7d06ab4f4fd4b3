"""Settings of the evaluation: which students are trained and compared."""

from pathlib import Path

from pydantic import Field

from tasks.evaluation.variants import FROM_FOLDS, Variant
from tasks.settings import Settings


class EvaluateSettings(Settings):
    """Which students are trained and compared on held-out items."""

    variants: tuple[Variant, ...] = tuple(v for v in Variant if v not in FROM_FOLDS)
    """Training sets to compare; a training set without items is left out, and so are `rationales`, `phased` and `soft`
    for probes, which learn no reasons and no probabilities and are trained in one go. `soft` needs
    `student.loss: soft`. `ensemble` and `fused`, only for LoRA students and not by default, measure the fold students
    combined; `fused` also writes them to `<output>/student`."""
    seeds: int = Field(default=3, ge=1)
    """Number of students per variant, each trained with its own seed: the run's `seed` and the numbers after it."""
    truth: Path | None = None
    """File of known true labels, in JSON Lines {id, label}. It is used for held-out items without a label in their
    manifest, and for the emitted items in the variant `ceiling`."""
