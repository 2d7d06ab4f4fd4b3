"""Settings for asking models: how a teacher is asked (votes, attempts), and what a run may spend (budget)."""

from typing import Self

from pydantic import Field, model_validator

from tasks.records import Sampling
from tasks.settings import Settings


class VoteSettings(Settings):
    """How a teacher is asked. Averaging several answers' probabilities is better than one answer or counted votes."""

    votes: int = Field(default=3, ge=1)
    """Number of answers per item; their label probabilities are averaged."""
    temperature: float = Field(default=0.7, ge=0)
    """Sampling temperature; used only with more than one vote."""
    max_tokens: int = Field(default=96, ge=8)
    """Maximum length of a reason, in tokens."""
    attempts: int = Field(default=2, ge=1)
    """Maximum attempts per item; an item is asked again when its answer cannot be read."""

    @model_validator(mode="after")
    def _votes_need_temperature(self) -> Self:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("more than one vote needs a `temperature` above 0, because at 0 all answers are equal")
        return self

    def sampling(self, seed: int) -> Sampling:
        """Return how the requests are sampled; label probabilities are always asked for."""
        return Sampling(
            n=self.votes,
            temperature=self.temperature if self.votes > 1 else 0.0,
            max_tokens=self.max_tokens,
            seed=seed,
            label_probabilities=True,
        )


class BudgetSettings(Settings):
    """What a run may spend before it stops cleanly. The next run continues from there. Reused answers are free."""

    requests: int | None = Field(default=None, ge=1)
    """Maximum number of requests to models."""
    tokens: int | None = Field(default=None, ge=1)
    """Maximum number of input and output tokens combined."""
    cost: float | None = Field(default=None, gt=0)
    """Maximum cost of the tokens, computed from each engine's `prices`."""
    hours: float | None = Field(default=None, gt=0)
    """Maximum duration in hours from the run's start; after that, no model is asked."""
