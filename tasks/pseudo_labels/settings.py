"""Settings of the pseudo_labels stage: how the pool is labelled, and which of the labels are kept."""

from typing import Annotated

from pydantic import Field

from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import VoteSettings


class PseudoLabelSettings(VoteSettings):
    """How the pool is labelled, and which of the labels are kept."""

    target_precision: float = Field(default=0.95, gt=0, le=1)
    """Required share of correct labels among the kept ones."""
    assurance: float = Field(default=0.9, ge=0.5, lt=1)
    """Required probability that the kept labels reach `target_precision`."""
    ask_students: bool = True
    """Also ask the students of the correction stage; their answers are further evidence."""
    cap: int | None = Field(default=None, ge=1)
    """Maximum number of pseudo-labels per class."""
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Maximum number of pseudo-labels for single classes: maps a label to a number."""
    floor: int = Field(default=0, ge=0)
    """Minimum number of pseudo-labels to keep per class, most confident first. It is ignored if the target precision
    could not be reached with it."""
    review_budget: int = Field(default=0, ge=0)
    """Maximum number of uncertain items on the pool's review page (in review_pool/)."""
    second_teacher: EngineSpec | None = None
    """Another model, which is asked about the items whose label from the teacher is not trusted."""
