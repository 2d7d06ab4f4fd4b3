"""Settings for asking models: how a teacher is asked (votes, attempts), and what a run may spend (budget)."""

from typing import Self

from pydantic import Field, model_validator

from tasks.models.engines.spec import EngineSpec, TeacherSpec
from tasks.records import Sampling
from tasks.settings import Settings

_RETRY_TEMPERATURE = 0.8
"""Greedy decoding would give the same answer again if the pack's template does not show the complaint."""


class TeacherSettings(Settings):
    """The models that label items: `teacher:` for one, `teachers:` for several."""

    teacher: EngineSpec | None = None
    """The model that labels the pool, and gives second opinions on suspicious labels."""
    teachers: tuple[TeacherSpec, ...] = ()
    """Several models instead of one `teacher`. The first labels all items. Items that are still uncertain go to the one
    that is expected to add the most information per price."""

    @property
    def panel(self) -> tuple[TeacherSpec, ...]:
        """Return all teachers, each with what it is asked about."""
        if self.teacher is not None:
            return (TeacherSpec.model_validate(dict(self.teacher) | {"ask": "all"}),)
        return tuple(
            spec.model_copy(update={"ask": spec.ask or ("uncertain" if place else "all")})
            for place, spec in enumerate(self.teachers)
        )

    @property
    def has_rule(self) -> bool:
        """Return whether the first teacher is a scripted rule, so that its labels are not trusted."""
        return bool(self.panel) and self.panel[0].is_rule

    @model_validator(mode="after")
    def _check_teachers(self) -> Self:
        if self.teacher is not None and self.teachers:
            raise ValueError("`teacher` and `teachers` are both set: list all of them under `teachers`")
        if self.teachers and self.panel[0].ask != "all":
            raise ValueError("the first of `teachers` is asked about all items: remove its `ask`, or list it later")
        return self


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
