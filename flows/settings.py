"""How each step is done: the parts that the flows' configurations (flows/config.py) are made of.

An unknown key is an error (`extra="forbid"`), every field has a description that the web UI's form shows.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.dataset.drift import Limits
from tasks.dataset.export.exports import ExportSpec
from tasks.evaluation.variants import Variant
from tasks.models.engines.engine import EngineSpec
from tasks.models.spending import Budget
from tasks.rationales.diversity import NEAR, Crowds
from tasks.rationales.reasoner import Support
from tasks.records import Sampling


class Settings(BaseModel):
    """Base of all configuration models."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(Settings):
    """A manifest and the folder its image names are relative to."""

    manifest: Path = Field(
        description="JSON array, JSON Lines, CSV or Parquet of id, instruction, image, output, or a folder of them"
    )
    images: Path = Field(description="Folder of the images; names that leave it are refused")


class RationaleSettings(Settings):
    """How rationales are asked for."""

    max_tokens: int = Field(default=96, ge=8, description="Longest answer, in tokens")
    temperature: float = Field(default=0.0, ge=0, description="0 is greedy")
    attempts: int = Field(
        default=2, ge=1, description="A refused reason is asked again, with the complaint and sampled, so often in all"
    )
    support: Support = Field(
        default=Support.NO, description="Ask, blind to it, for the label after each reason that passed all else"
    )
    alike: float = Field(
        default=NEAR, gt=0, le=1, description="From which share of common character pairs on two reasons are alike"
    )
    opening_share: float = Field(
        default=0.1, gt=0, le=1, description="At most this share of a class (half of it: of all) may begin alike"
    )
    without_reason: Literal["keep_item", "drop_item"] = Field(
        default="keep_item", description="Items without a good reason: taught with the label alone, or left out"
    )

    def crowds(self) -> Crowds:
        """What is too alike, for the gate."""
        return Crowds(near=self.alike, opening_share=self.opening_share)


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


class PseudoLabelSettings(VoteSettings):
    """How the pool is labelled, and what is kept."""

    target_precision: float = Field(default=0.95, gt=0, le=1, description="Share of right labels in the kept set")
    assurance: float = Field(
        default=0.9, ge=0.5, lt=1, description="How probable it must be that the kept set reaches that share"
    )
    ask_students: bool = Field(
        default=True, description="Ask correction's students about the pool; their agreement is evidence"
    )
    cap: int | None = Field(default=None, ge=1, description="At most this many pseudo-labels of a class")
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="At most this many of the classes named"
    )
    floor: int = Field(
        default=0, ge=0, description="The surest so many of each class go first, while the target is still reached"
    )
    class_temperature: float = Field(
        default=1.0, ge=0, le=1, description="Classes beyond the median size are thinned: 1 not at all, 0 down to it"
    )
    review_budget: int = Field(
        default=0, ge=0, description="At most this many uncertain items are put before a person (review_pool/review)"
    )
    second_teacher: EngineSpec | None = Field(
        default=None, description="Another model, asked about what the first leaves uncertain"
    )


class ReviewerConfig(Settings):
    """Who answers for the cases that the audit asks about."""

    kind: Literal["nobody", "verdict_file", "demo_stand_in"] = Field(
        default="nobody",
        description="nobody: cases wait; verdict_file: a person's; demo_stand_in: the demo's, which knows the truth",
    )
    path: Path | None = Field(
        default=None, description="verdicts as JSON Lines {id, verdict}, or the demo's truth file"
    )

    @model_validator(mode="after")
    def _path_where_needed(self) -> Self:
        if (self.kind == "nobody") != (self.path is None):
            raise ValueError(f"reviewer: kind `{self.kind}` {'takes no' if self.kind == 'nobody' else 'needs a'} path")
        return self


class CorrectionSettings(VoteSettings):
    """How departures from the given labels are adjudicated and audited."""

    review_budget: int = Field(default=100, ge=0, description="At most this many items are put before the reviewer")
    audit: int = Field(
        default=100, ge=0, description="Of these, the sample that calibrates and opens the gate; the rest by gain"
    )
    teacher_share: float = Field(
        default=0.25, ge=0, le=1, description="At most this share of the items, the most suspicious, is adjudicated"
    )
    target_precision: float | None = Field(
        default=None, gt=0, le=1, description="Flag for this expected precision instead of for the best expected F1"
    )
    reviewer: ReviewerConfig = Field(default=ReviewerConfig(), description="Who answers them")
    gate_level: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Unreviewed proposals are applied only if the Wilson lower bound of audited wins exceeds this",
    )


class MixSettings(Settings):
    """General-purpose conversations, mixed in against forgetting."""

    file: Path = Field(
        description='JSON array or JSON Lines of {"messages": [{"role", "content"}], "images": [file names]}'
    )
    images: Path | None = Field(
        default=None, description="Folder that image names are relative to; default: the file's own"
    )
    share: float = Field(default=0.1, gt=0, le=0.9, description="Of the whole training set")


class EmitSettings(Settings):
    """What is written."""

    name: str = Field(default="labelstill", pattern=r"^[\w-]+$", description="Name of the data set and of its files")
    licence: str | None = Field(
        default=None, description="Licence of the set, an SPDX identifier or a name; the card warns where none is named"
    )
    reason_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Of the examples with a reason, this share is taught with it, the others with the label alone; a "
        "small student that is asked for labels alone learns them worse beside many reasons",
    )
    reasons_alike: float = Field(
        default=NEAR,
        gt=0,
        le=1,
        description="Of reasons with at least this share of common character pairs, the generator's and the teacher's, "
        "one is taught",
    )
    waiting: Literal["keep", "drop"] = Field(
        default="keep", description="Items that wait for review: taught with the given label, or left out"
    )
    transductive: bool = Field(
        default=False, description="Teach items of `evaluation` and nearly equal ones too; the card then says so first"
    )
    near_duplicates: Literal["drop", "keep"] = Field(
        default="drop", description="Of items nearly equal in image and text, teach one, or all"
    )
    mix: MixSettings | None = Field(default=None, description="General-purpose examples against forgetting")
    validation_share: float = Field(
        default=0.0, ge=0, le=0.5, description="Held out for validation: by label, nearly equal items on one side"
    )
    export: ExportSpec = Field(default=ExportSpec(), description="What is written for which trainer")


class BudgetSettings(Settings):
    """What one run may spend; then it stops cleanly, and the next run goes on from there. Reused answers are free."""

    requests: int | None = Field(default=None, ge=1, description="Questions put to models")
    tokens: int | None = Field(default=None, ge=1, description="Tokens read and written")
    cost: float | None = Field(default=None, gt=0, description="Price of these tokens, by the engines' `prices`")
    hours: float | None = Field(
        default=None, gt=0, description="Hours from the run's start after which nothing more is asked"
    )

    def budget(self) -> Budget:
        """A budget of which nothing is spent yet."""
        return Budget(requests=self.requests, tokens=self.tokens, cost=self.cost, hours=self.hours)


class DriftSettings(Settings):
    """How far a new version may be from the last published one before it is held back for a person."""

    relabelled: float = Field(default=0.05, ge=0, le=1, description="Share of the common items with another label")
    removed: float = Field(default=0.1, ge=0, le=1, description="Share of the items that are gone")
    balance: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Total variation distance of the label distributions: 0 the same, 1 disjoint",
    )
    confidence: float = Field(
        default=0.05, ge=0, le=1, description="Fall of the mean expected precision of the pool's labels"
    )

    def limits(self) -> Limits:
        """The same for tasks/dataset/drift.py."""
        return Limits(**self.model_dump())


class ApprovalSettings(Settings):
    """Whether a person decides on a new version."""

    ask: Literal["drift", "always", "never"] = Field(
        default="never",
        description="Pause for an answer in the web UI: when the set moved too far, before every version, or never "
        "(what moved too far is held back at once)",
    )
    hours: float = Field(
        default=12.0, gt=0, le=240, description="How long the run waits; without an answer it is held back"
    )


class EvaluateSettings(Settings):
    """How students are compared."""

    variants: tuple[Variant, ...] = Field(
        default=tuple(Variant), description="Sets that students are trained on; those without items are left out"
    )
    seeds: int = Field(default=3, ge=1, description="Students a variant")
    steps: int | None = Field(
        default=None, ge=1, description="Updates, the same for all; none: the student's `epochs` over the emitted set"
    )
    parallel: int = Field(default=1, ge=1, description="Students trained at once, each in a process of its own")
    ask_reasons: bool = Field(
        default=True, description="Students that were taught reasons say one too: does it agree with the label?"
    )
    truth: Path | None = Field(
        default=None,
        description="True labels as JSON Lines {id, label}, where they are known: of held-out items without a label in "
        "their manifest, and of emitted items for the variant `ceiling`",
    )
