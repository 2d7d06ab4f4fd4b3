"""Settings of the pseudo_labels stage: how the pool is labelled, and which labels are kept."""

from typing import Annotated

from pydantic import Field

from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import VoteSettings


class PseudoLabelSettings(VoteSettings):
    """How the pool is labelled, and which labels are kept."""

    target_precision: float = Field(default=0.95, gt=0, le=1)
    """Required share of correct labels in the kept set."""
    assurance: float = Field(default=0.9, ge=0.5, lt=1)
    """Probability with which the kept set must reach `target_precision`."""
    ask_students: bool = True
    """Ask the students of the correction stage too; their agreement is evidence."""
    cap: int | None = Field(default=None, ge=1)
    """Maximum number of pseudo-labels per class."""
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Maximum number of pseudo-labels of single classes, by label."""
    floor: int = Field(default=0, ge=0)
    """Keep at least this many per class, most confident first, while the precision holds."""
    review_budget: int = Field(default=0, ge=0)
    """Maximum number of uncertain items on the review page of the pool (review_pool/)."""
    second_teacher: EngineSpec | None = None
    """Another model, which is asked about items that the teacher leaves uncertain."""
