"""Settings of the pseudo_labels stage: how the pool is labelled, and which of the labels are kept."""

from typing import Annotated

from pydantic import Field

from tasks.settings import Settings


class PseudoLabelSettings(Settings):
    """How the pool is labelled, and which of the labels are kept."""

    target_precision: float = Field(default=0.95, gt=0, le=1)
    """Required share of correct labels among the kept ones."""
    cap: int | dict[str, Annotated[int, Field(ge=0)]] | None = None
    """Maximum number of pseudo-labels per class: one number for all classes, or a mapping from labels to numbers."""
    floor: int = Field(default=0, ge=0)
    """Minimum number of pseudo-labels to keep per class, most confident first. It is ignored if the target precision
    could not be reached with it."""
    review_budget: int = Field(default=0, ge=0)
    """Maximum number of uncertain items on the pool's review page (in review_pool/)."""
