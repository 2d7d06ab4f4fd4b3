"""Settings of the evaluation: which students are trained and compared."""

from pathlib import Path

from pydantic import Field

from tasks.evaluation.variants import Variant
from tasks.settings import Settings


class EvaluateSettings(Settings):
    """Which students are trained and compared on held-out items."""

    variants: tuple[Variant, ...] = tuple(Variant)
    """Training sets to compare; a training set without items is left out."""
    seeds: int = Field(default=3, ge=1)
    """Number of students per variant, each trained with its own seed: `student.seed` and the numbers after it."""
    steps: int | None = Field(default=None, ge=1)
    """Training steps per student; none: the student's own `steps`, or its `epochs` over the emitted set."""
    parallel: int = Field(default=1, ge=1)
    """Number of students trained at the same time on a machine without GPUs, each in its own process. On a machine with
    GPUs, each GPU trains one student at a time."""
    ask_reasons: bool = True
    """Also ask students that were trained on reasons to give one, and measure how often the label stays the same."""
    truth: Path | None = None
    """File of known true labels, in JSON Lines {id, label}. It is used for held-out items without a label in their
    manifest, and for the emitted items in the variant `ceiling`."""
