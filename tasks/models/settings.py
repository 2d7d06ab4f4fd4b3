"""Settings for asking models: how a teacher is asked (votes, attempts), and what a run may spend (budget)."""

from typing import Self

from pydantic import Field, model_validator

from tasks.records import Sampling
from tasks.settings import Settings

_RETRY_TEMPERATURE = 0.8
"""Greedy decoding would give the same answer again if the pack's template does not show the complaint."""


class AskSettings(Settings):
    """How models are asked (`ask:`). The average of several answers' probabilities is better than one answer."""

    votes: int = Field(default=3, ge=1)
    """Number of answers of the teacher per item; their label probabilities are averaged."""
    temperature: float = Field(default=0.7, ge=0)
    """Sampling temperature of the votes; used only with more than one."""
    max_tokens: int = Field(default=96, ge=8)
    """Maximum length of a reason, in tokens."""
    attempts: int = Field(default=2, ge=1)
    """Maximum attempts per item: an item is asked again if its answer cannot be read or its reason is rejected."""

    @model_validator(mode="after")
    def _votes_need_temperature(self) -> Self:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("more than one vote needs a `temperature` above 0, because at 0 all answers are equal")
        return self

    def sample_votes(self, seed: int) -> Sampling:
        """Return how a label is asked for; label probabilities are always asked for."""
        return Sampling(
            n=self.votes,
            temperature=self.temperature if self.votes > 1 else 0.0,
            max_tokens=self.max_tokens,
            seed=seed,
            label_probabilities=True,
        )

    def sample_reason(self, attempt: int, seed: int) -> Sampling:
        """Return how the reason for a given label is asked for at an attempt, counted from 0."""
        temperature = 0.0 if attempt == 0 else _RETRY_TEMPERATURE
        return Sampling(temperature=temperature, max_tokens=self.max_tokens, seed=seed + attempt)


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
