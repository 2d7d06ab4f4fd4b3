"""Settings of correction: how suspicious labels are checked by the teacher and by a person."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.models.settings import VoteSettings
from tasks.settings import Settings


class ReviewerConfig(Settings):
    """Who judges the items that correction wants a person to look at."""

    kind: Literal["nobody", "verdict_file", "demo_stand_in"] = "nobody"
    """nobody: cases wait for a review; verdict_file: read a person's verdicts from `path`; demo_stand_in: the demo's
    simulated person, who knows the true labels."""
    path: Path | None = None
    """Verdicts as JSON Lines {id, verdict}, or the demo's file of true labels."""

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.kind == "nobody") != (self.path is None):
            raise ValueError(f"reviewer: kind `{self.kind}` {'takes no' if self.kind == 'nobody' else 'needs a'} path")
        return self


class CorrectionSettings(VoteSettings):
    """How items whose predictions contradict their given label are checked and decided."""

    review_budget: int = Field(default=100, ge=0)
    """Maximum number of items for the reviewer."""
    audit: int = Field(default=100, ge=0)
    """How many of the reviewed items are a sample for calibration and the gate; expected gain chooses the others."""
    teacher_share: float = Field(default=0.25, ge=0, le=1)
    """Maximum share of the items that the teacher checks, most suspicious first."""
    target_precision: float | None = Field(default=None, ge=0, le=1)
    """Flag as many items as this expected precision allows; none: flag for the best expected F1."""
    reviewer: ReviewerConfig = ReviewerConfig()
    """Who judges the items under review."""
    gate_level: float = Field(default=0.5, ge=0, le=1)
    """Change labels without a review only if the lower bound (95 % Wilson interval) of the share of audited proposals
    that were right exceeds this."""
