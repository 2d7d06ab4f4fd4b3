"""Settings of asking models: how a teacher answers (votes, attempts), and what a run may spend (budget)."""

from typing import Self

from pydantic import Field, model_validator

from tasks.records import Sampling
from tasks.settings import Settings


class VoteSettings(Settings):
    """How a teacher is asked; averaged probabilities of several answers beat hard votes and a single answer."""

    votes: int = Field(default=3, ge=1, description="Answers an item; their label probabilities are averaged")
    temperature: float = Field(default=0.7, ge=0, description="Of the votes; a single vote with 0 is greedy")
    max_tokens: int = Field(default=96, ge=8, description="Longest reason, in tokens")
    attempts: int = Field(
        default=2, ge=1, description="An answer that can't be read is asked for again, up to this many times in all"
    )

    @model_validator(mode="after")
    def _votes_need_temperature(self) -> Self:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("more than one vote needs temperature > 0 (greedy answers are all alike)")
        return self

    def sampling(self, seed: int) -> Sampling:
        """The same as the engines' sampling, label probabilities included."""
        return Sampling(
            n=self.votes,
            temperature=self.temperature if self.votes > 1 else 0.0,
            max_tokens=self.max_tokens,
            seed=seed,
            label_probabilities=True,
        )


class BudgetSettings(Settings):
    """What one run may spend; then it stops cleanly, and the next run goes on from there. Reused answers are free."""

    requests: int | None = Field(default=None, ge=1, description="Questions put to models")
    tokens: int | None = Field(default=None, ge=1, description="Tokens read and written")
    cost: float | None = Field(default=None, gt=0, description="Price of these tokens, by the engines' `prices`")
    hours: float | None = Field(
        default=None, gt=0, description="Hours from the run's start after which nothing more is asked"
    )
