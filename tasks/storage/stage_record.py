"""The fields of a stage's record.json: its recipe, counts, inputs and costs."""

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tasks.records import digest_of


class Costs(BaseModel):
    """The costs of a stage's answers. Made by `models.costs`; read by pages, the card and the summary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: int = 0
    reused: int = 0
    """Answers found in the ledger."""
    failed: int = 0
    shortened: int = 0
    """Prompts that were shortened to fit the context length."""
    asked_again: int = 0
    """Questions asked again with a new seed because their answer was unreadable."""
    tokens_in: int = 0
    tokens_cached: int = 0
    """Tokens of `tokens_in` that were in the server's prefix cache."""
    tokens_out: int = 0
    answering_seconds: float = 0.0
    """Wall time in which engines were answering."""
    utilisation: float = 0.0
    """Mean requests in flight divided by the engines' target while they were answering, 0 to 1."""
    starved_seconds: float = 0.0
    """Seconds of `answering_seconds` in which an engine had free capacity but got no request."""
    gpu_seconds: float = 0.0
    cost: float | None = None
    """In the currency of the configured prices; None without prices."""
    rungs: dict[str, int] = Field(default_factory=dict)
    """Predictions by the rung of the repair ladder that read them."""

    def rows(self) -> list[tuple[str, float | int]]:
        """Return (name, value) for tables, in order, without zero values."""
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
    """The content of record.json: what a stage did, by which it is decided whether it must run again.

    Made by `write_stage` and `close_stage`; read by every later stage, the card and the pages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    recipe: str
    """Hash of everything that determines the result: settings, inputs, models, pack, code."""
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
    """The costs of its answers."""
    figures: dict[str, float] = Field(default_factory=dict)
    """Further figures of the stage, by name."""
    finished_at: float = Field(default_factory=time.time)

    @property
    def digest(self) -> str:
        """Return the identity of the stage's output, for the recipe of the next stage."""
        again = self.finished_at if self.costs.failed else 0  # other items may fail when the same recipe runs again
        return digest_of([self.stage, self.recipe, self.kept, self.dropped, again])


def read_record(folder: Path) -> StageRecord | None:
    """Return the stage's record, whatever its recipe; None if it does not exist or cannot be read."""
    try:
        return StageRecord.model_validate_json((folder / "record.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
