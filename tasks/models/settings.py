"""Settings for asking models: how a teacher answers (votes, attempts), and what a run may spend (budget)."""

from typing import Self

from pydantic import Field, model_validator

from tasks.records import Sampling
from tasks.settings import Settings


class VoteSettings(Settings):
    """How a teacher is asked. Averaged probabilities of several answers beat counted votes and a single answer."""

    votes: int = Field(default=3, ge=1)
    """Answers per item, whose label probabilities are averaged."""
    temperature: float = Field(default=0.7, ge=0)
    """Sampling temperature; used with more than one vote only."""
    max_tokens: int = Field(default=96, ge=8)
    """Maximum length of a reason, in tokens."""
    attempts: int = Field(default=2, ge=1)
    """Maximum requests for an answer that cannot be read, with the first."""

    @model_validator(mode="after")
    def _votes_need_temperature(self) -> Self:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("more than one vote needs `temperature` above 0, because greedy answers are all equal")
        return self

    def sampling(self, seed: int) -> Sampling:
        """Return the sampling of the requests, label probabilities included."""
        return Sampling(
            n=self.votes,
            temperature=self.temperature if self.votes > 1 else 0.0,
            max_tokens=self.max_tokens,
            seed=seed,
            label_probabilities=True,
        )


class BudgetSettings(Settings):
    """What a run may spend before it stops cleanly; the next run continues from there. Reused answers are free."""

    requests: int | None = Field(default=None, ge=1)
    """Maximum number of requests to models."""
    tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens read and written together."""
    cost: float | None = Field(default=None, gt=0)
    """Maximum price of the tokens, by the engines' `prices`."""
    hours: float | None = Field(default=None, gt=0)
    """Hours from the run's start until asking stops."""
