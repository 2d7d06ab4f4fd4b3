"""Settings of the evaluation: which students are trained and compared."""

from pathlib import Path

from pydantic import Field

from tasks.evaluation.variants import Variant
from tasks.settings import Settings


class EvaluateSettings(Settings):
    """Which students are trained and compared on held-out items."""

    variants: tuple[Variant, ...] = tuple(Variant)
    """Training sets to compare; those without items are left out."""
    seeds: int = Field(default=3, ge=1)
    """Students per variant, each trained with another seed."""
    steps: int | None = Field(default=None, ge=1)
    """Training steps per student; none: the student's `epochs` over the emitted set."""
    parallel: int = Field(default=1, ge=1)
    """Number of students trained in parallel, each in its own process."""
    ask_reasons: bool = True
    """Ask students trained on reasons for a reason too, and measure whether it agrees with the label."""
    truth: Path | None = None
    """File of known true labels, JSON Lines {id, label}: of held-out items without a label in their manifest, and of
    the emitted items for the variant `ceiling`."""
