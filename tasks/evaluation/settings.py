"""Settings of the evaluation: which students are trained and compared."""

from pathlib import Path

from pydantic import Field

from tasks.evaluation.variants import Variant
from tasks.settings import Settings


class EvaluateSettings(Settings):
    """Which students are trained and compared on held-out items."""

    variants: tuple[Variant, ...] = tuple(Variant)
    """Training sets to compare; a training set without items is left out, and so are `rationales`
    and `phased` for probes, which learn no reasons and are trained in one go."""
    seeds: int = Field(default=3, ge=1)
    """Number of students per variant, each trained with its own seed: the run's `seed` and the numbers after it."""
    parallel: int = Field(default=1, ge=1)
    """Number of LoRA students trained in parallel, each in its own process."""
    truth: Path | None = None
    """File of known true labels, in JSON Lines {id, label}. It is used for held-out items without a label in their
    manifest, and for the emitted items in the variant `ceiling`."""
