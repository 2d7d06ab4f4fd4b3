"""How students are compared."""

from pathlib import Path

from pydantic import Field

from tasks.evaluation.variants import Variant
from tasks.settings import Settings


class EvaluateSettings(Settings):
    """How students are compared."""

    variants: tuple[Variant, ...] = Field(
        default=tuple(Variant), description="Sets that students are trained on; those without items are left out"
    )
    seeds: int = Field(default=3, ge=1, description="Students a variant")
    steps: int | None = Field(
        default=None, ge=1, description="Updates, the same for all; none: the student's `epochs` over the emitted set"
    )
    parallel: int = Field(default=1, ge=1, description="Students trained at once, each in a process of its own")
    ask_reasons: bool = Field(
        default=True, description="Students that were taught reasons say one too: does it agree with the label?"
    )
    truth: Path | None = Field(
        default=None,
        description="True labels as JSON Lines {id, label}, where they are known: of held-out items without a label in "
        "their manifest, and of emitted items for the variant `ceiling`",
    )
