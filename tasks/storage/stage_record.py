"""The fields of record.json, which describes a finished stage: its recipe, counts, inputs and costs."""

import time
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tasks.records import digest_of


class Costs(BaseModel):
    """What a stage's answers cost. Made by `models.costs`; read by the web pages, the card and the summary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: int = 0
    """Answers that an engine gave, not the ledger."""
    reused: int = 0
    """Answers found in the ledger."""
    failed: int = 0
    shortened: int = 0
    """Prompts that were shortened to fit the context length."""
    asked_again: int = 0
    """Questions asked again with a new seed because their answer was unreadable."""
    tokens_in: int = 0
    tokens_cached: int = 0
    """The part of `tokens_in` that was in the server's prefix cache."""
    tokens_out: int = 0
    tokens_thinking: int = 0
    """The part of `tokens_out` that servers report as thinking."""
    answering_seconds: float = 0.0
    """Wall time, in seconds, in which engines were answering."""
    utilisation: float = 0.0
    """Requests in flight as a fraction (0 to 1) of the engines' target, averaged over the time spent answering."""
    starved_seconds: float = 0.0
    """The part of `answering_seconds` in which an engine had free capacity but got no request."""
    gpu_seconds: float = 0.0
    cost: float | None = None
    """Money spent, in the currency of the configured prices; None without prices."""
    rungs: Counter[str] = Field(default_factory=Counter)
    """Maps each rung of the repair ladder (`records.Rung`) to the number of predictions that it read."""

    def rows(self) -> list[tuple[str, float | int]]:
        """Return (name, value) pairs in the order of display; values that are zero are left out."""
        shown: list[tuple[str, float | int]] = [
            ("answers asked", self.asked), ("answers reused", self.reused), ("answers failed", self.failed),
            ("prompts shortened", self.shortened), ("asked again", self.asked_again),
            ("tokens in", self.tokens_in), ("of these cached", self.tokens_cached), ("tokens out", self.tokens_out),
            ("of these thinking", self.tokens_thinking),
            ("seconds answering", round(self.answering_seconds, 1)),
            ("engine utilisation, %", round(100 * self.utilisation, 1)),
            ("seconds starved", round(self.starved_seconds, 1)), ("GPU-seconds", round(self.gpu_seconds, 1)),
            ("cost", round(self.cost or 0.0, 4)),
        ]  # fmt: skip
        return [*((n, v) for n, v in shown if v), *((f"read: {rung}", n) for rung, n in self.rungs.items())]


class StageRecord(BaseModel):
    """The content of record.json: what a stage did, and the recipe that shows whether it must run again.

    Made by `write_stage` and `close_stage`; read by every later stage, the card and the web pages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    recipe: str
    """Hash of everything that determines the result: settings, inputs, models, pack, code."""
    read: int
    kept: int
    dropped: int
    drops: dict[str, int] = Field(default_factory=dict)
    """Maps each reason code to its number of dropped items."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Maps the name of each input to its digest."""
    models: dict[str, str] = Field(default_factory=dict)
    """Maps each model's role to the model's identity."""
    pruned: float = 0.0
    """When answers of these models were last deleted from the ledger before the stage ran (Unix seconds); 0: never."""
    code: str = ""
    seconds: float = 0.0
    costs: Costs = Costs()
    """What the stage's answers cost."""
    figures: dict[str, float] = Field(default_factory=dict)
    """Maps names to further figures of the stage."""
    content: str = ""
    """Digest of the items themselves, for a stage whose output does not change with every change of its inputs."""
    finished_at: float = Field(default_factory=time.time)

    @property
    def digest(self) -> str:
        """Return a digest that identifies the stage's output; it is part of the next stage's recipe."""
        again = self.finished_at if self.costs.failed else 0  # other items may fail when the same recipe runs again
        return digest_of([self.stage, self.content or self.recipe, self.kept, self.dropped, again, self.pruned])


def read_record(folder: Path) -> StageRecord | None:
    """Return the record in a stage's folder, whatever its recipe; None if it does not exist or is invalid."""
    try:
        return StageRecord.model_validate_json((folder / "record.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
