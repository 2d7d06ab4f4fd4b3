"""Settings of correction: how the teacher and a person check suspicious labels."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.models.settings import VoteSettings
from tasks.settings import Settings


class ReviewerConfig(Settings):
    """Who judges the items that correction wants a person to look at."""

    kind: Literal["nobody", "verdict_file", "demo_stand_in"] = "nobody"
    """Who answers. nobody: items wait for a review; verdict_file: a person, whose verdicts are in `path`;
    demo_stand_in: the demo's simulated person, who knows the true labels."""
    path: Path | None = None
    """File with verdicts as JSON Lines {"id", "verdict"}, or the demo's file with the true labels."""

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.kind == "nobody") != (self.path is None):
            raise ValueError(f"reviewer: kind `{self.kind}` {'takes no' if self.kind == 'nobody' else 'needs a'} path")
        return self


class CorrectionSettings(VoteSettings):
    """How given labels are checked, and when they are changed."""

    review_budget: int = Field(default=100, ge=0)
    """Maximum number of items that the reviewer is asked about in all, verdicts of earlier runs included."""
    audit: int | None = Field(default=None, ge=0)
    """Number of reviewed items that are drawn as a sample, to calibrate probabilities and to judge the gate; none: a
    third of the budget. The other reviews go to the items where a verdict is expected to help most."""
    teacher_share: float = Field(default=0.25, ge=0, le=1)
    """Maximum share of the items that the teacher is asked about, most suspicious first."""
    target_precision: float | None = Field(default=None, ge=0, le=1)
    """Flag as many items as possible while their expected precision is at least this. By default, flags maximise the
    expected F1."""
    reviewer: ReviewerConfig = ReviewerConfig()
    """Who judges the items that are reviewed."""
    gate_level: float = Field(default=0.5, ge=0, le=1)
    """Labels change without a review only if enough audited proposals were right: the lower bound of their share must
    exceed this. The bound holds however often verdicts are added."""

    @property
    def audit_size(self) -> int:
        """Return the number of items to audit, at most the whole budget."""
        return self.review_budget // 3 if self.audit is None else min(self.audit, self.review_budget)
