"""The record.json of a stage: its recipe, its counts, what it was made from, what its answers cost."""

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tasks.records import digest_of


class Costs(BaseModel):
    """What the answers of a stage cost. Made by `models.costs`; read by pages, the card and the summary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: int = 0
    reused: int = 0
    """Answers found in the ledger."""
    failed: int = 0
    shortened: int = 0
    """Prompts that had to be shortened to fit."""
    asked_again: int = 0
    """Questions put once more with a new seed, their answer being unreadable."""
    tokens_in: int = 0
    tokens_cached: int = 0
    """Of `tokens_in`, those found in the server's prefix cache."""
    tokens_out: int = 0
    answering_seconds: float = 0.0
    """Wall time in which engines answered."""
    utilisation: float = 0.0
    """Mean requests in flight over the engines' targets while they answered, 0 to 1."""
    starved_seconds: float = 0.0
    """Of `answering_seconds`, those in which an engine had room and was handed nothing."""
    gpu_seconds: float = 0.0
    cost: float | None = None
    """In the currency of the configured prices; None where none are."""
    rungs: dict[str, int] = Field(default_factory=dict)
    """Predictions by the rung of the repair ladder that read them."""

    def rows(self) -> list[tuple[str, float | int]]:
        """What a table shows, in order; figures that say nothing are left out."""
        shown: list[tuple[str, float | int]] = [
            ("answers asked", self.asked), ("answers reused", self.reused), ("answers failed", self.failed),
            ("prompts shortened", self.shortened), ("asked again", self.asked_again),
            ("tokens in", self.tokens_in), ("of these cached", self.tokens_cached), ("tokens out", self.tokens_out),
            ("seconds answering", round(self.answering_seconds, 1)),
            ("engine utilisation, %", round(100 * self.utilisation, 1)),
            ("seconds starved", round(self.starved_seconds, 1)), ("GPU-seconds", round(self.gpu_seconds, 1)),
            ("cost", round(self.cost or 0.0, 4)),
        ]  # fmt: skip
        return [*((n, v) for n, v in shown if v), *((f"read: {rung}", n) for rung, n in self.rungs.items())]


class StageRecord(BaseModel):
    """What record.json holds: what a stage did, and whether it must be done again.

    Made by `write_stage` and `close_stage`; read by every later stage, the card and the pages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    recipe: str
    """Hash of everything that decides the outcome: settings, inputs, models, pack, code."""
    read: int
    kept: int
    dropped: int
    drops: dict[str, int] = Field(default_factory=dict)
    """Dropped items by reason code."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Digest of each input by name."""
    models: dict[str, str] = Field(default_factory=dict)
    """Identity of each model by role."""
    code: str = ""
    seconds: float = 0.0
    costs: Costs = Costs()
    """What its answers cost."""
    figures: dict[str, float] = Field(default_factory=dict)
    """The stage's own figures by name."""
    finished_at: float = Field(default_factory=time.time)

    @property
    def digest(self) -> str:
        """Identity of the stage's output, for the recipe of the stage after it."""
        again = self.finished_at if self.costs.failed else 0  # by the same recipe it may be other items that fail
        return digest_of([self.stage, self.recipe, self.kept, self.dropped, again])


def read_record(folder: Path) -> StageRecord | None:
    """The stage's record whatever its recipe; None where there is none or it can't be read."""
    try:
        return StageRecord.model_validate_json((folder / "record.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
