"""How suspicious labels are adjudicated and audited."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.models.settings import VoteSettings
from tasks.settings import Settings


class ReviewerConfig(Settings):
    """Who answers for the cases that the audit asks about."""

    kind: Literal["nobody", "verdict_file", "demo_stand_in"] = Field(
        default="nobody",
        description="nobody: cases wait; verdict_file: a person's; demo_stand_in: the demo's, which knows the truth",
    )
    path: Path | None = Field(
        default=None, description="verdicts as JSON Lines {id, verdict}, or the demo's truth file"
    )

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.kind == "nobody") != (self.path is None):
            raise ValueError(f"reviewer: kind `{self.kind}` {'takes no' if self.kind == 'nobody' else 'needs a'} path")
        return self


class CorrectionSettings(VoteSettings):
    """How departures from the given labels are adjudicated and audited."""

    review_budget: int = Field(default=100, ge=0, description="At most this many items are put before the reviewer")
    audit: int = Field(
        default=100, ge=0, description="Of these, the sample that calibrates and opens the gate; the rest by gain"
    )
    teacher_share: float = Field(
        default=0.25, ge=0, le=1, description="At most this share of the items, the most suspicious, is adjudicated"
    )
    target_precision: float | None = Field(
        default=None, ge=0, le=1, description="Flag for this expected precision instead of for the best expected F1"
    )
    reviewer: ReviewerConfig = Field(default=ReviewerConfig(), description="Who answers them")
    gate_level: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Unreviewed proposals are applied only if the Wilson lower bound of audited wins exceeds this",
    )
