"""Settings of correction: how the teacher and a person check suspicious labels."""

from pathlib import Path

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from tasks.settings import Settings


class CorrectionSettings(Settings):
    """How given labels are checked, and when they are changed."""

    review_budget: int = Field(default=100, ge=0)
    """Maximum number of items that people are asked about in all, verdicts of earlier runs included."""
    audit: int | None = Field(default=None, ge=0)
    """Number of reviewed items that form the blind audit sample, which calibrates probabilities and decides the gate;
    default: a third of the budget. The other reviews go to the items where a verdict is expected to help most."""
    teacher_share: SkipJsonSchema[float] = Field(default=0.25, ge=0, le=1)
    """Maximum share of the items that teachers are asked about, most suspicious first (`find-errors --teacher-share`).
    """
    target_precision: float | None = Field(default=None, ge=0, le=1)
    """Flag as many items as possible while their expected precision is at least this. By default, flags maximise the
    expected F1."""
    stand_in: SkipJsonSchema[Path | None] = None
    """File with the true labels, from which the demo's simulated reviewer answers."""
    gate_level: float = Field(default=0.5, ge=0, le=1)
    """Labels change without a review only if enough audited proposals were right: the lower bound of their share must
    exceed this. The bound holds however often verdicts are added."""

    @property
    def audit_size(self) -> int:
        """Return the number of items to audit, at most the whole budget."""
        return self.review_budget // 3 if self.audit is None else min(self.audit, self.review_budget)
