"""How the pool is labelled, and which labels are kept."""

from typing import Annotated

from pydantic import Field

from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import VoteSettings


class PseudoLabelSettings(VoteSettings):
    """How the pool is labelled, and what is kept."""

    target_precision: float = Field(default=0.95, gt=0, le=1, description="Share of right labels in the kept set")
    assurance: float = Field(
        default=0.9, ge=0.5, lt=1, description="How probable it must be that the kept set reaches that share"
    )
    ask_students: bool = Field(
        default=True, description="Ask correction's students about the pool; their agreement is evidence"
    )
    cap: int | None = Field(default=None, ge=1, description="At most this many pseudo-labels of a class")
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="At most this many of the classes named"
    )
    floor: int = Field(
        default=0, ge=0, description="The surest so many of each class go first, while the target is still reached"
    )
    review_budget: int = Field(
        default=0, ge=0, description="At most this many uncertain items are put before a person (review_pool/review)"
    )
    second_teacher: EngineSpec | None = Field(
        default=None, description="Another model, asked about what the first leaves uncertain"
    )
