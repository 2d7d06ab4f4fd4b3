"""The configuration: one pydantic model a flow, the same keys in YAML and in the web UI's form.

An unknown key is an error (`extra="forbid"`), every field has a description that the form shows.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from tasks.alikeness import NEAR, Crowds
from tasks.engines import EngineSpec
from tasks.errors import ConfigError
from tasks.export import ExportSpec
from tasks.rationales import Support
from tasks.records import Sampling
from tasks.students import ExternalSpec, ProbeSpec, StudentSpec
from tasks.variants import Variant
from tasks.yaml_files import read_yaml

StageName = Literal["rationales", "pseudo_labels", "correction"]
"""The stages whose results `emit` merges."""


def _kind(student: object) -> str:
    kind = student.get("kind", "lora") if isinstance(student, dict) else getattr(student, "kind", "lora")  # pyright: ignore
    return str(kind)  # pyright: ignore


def _any_of(schema: dict[str, Any]) -> None:
    """Prefect's server takes an object without `kind` for every kind at once, which `oneOf` forbids."""
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
        schema.pop("discriminator", None)


AnyStudent = Annotated[
    Annotated[StudentSpec, Tag("lora")] | Annotated[ProbeSpec, Tag("probe")] | Annotated[ExternalSpec, Tag("external")],
    Discriminator(_kind),
    Field(json_schema_extra=_any_of),
]


class Settings(BaseModel):
    """Base of all configuration models."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(Settings):
    """A manifest and the folder its image names are relative to."""

    manifest: Path = Field(description="JSON array, JSON Lines, CSV or Parquet with id, instruction, image, output")
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


class CommonConfig(Settings):
    """What every flow needs."""

    pack: str = Field(description="Name of a pack under templates/, or a folder")
    output: Path = Field(description="Folder of the run; a rerun with the same folder goes on where it was")
    ledger: Path = Field(
        default=Path("artifacts/ledger.sqlite"), description="Every answer ever paid for, shared by all runs"
    )
    images: Path = Field(
        default=Path("artifacts/images"), description="Images as models see them, made once and shared by all runs"
    )
    texts: Path = Field(
        default=Path("artifacts/texts"), description="Text read off images (packs with `ocr`), shared by all runs"
    )
    shard_size: int = Field(default=500, ge=1, description="Answers a task run; aim at half a minute or more")
    seed: int = Field(default=0, description="Seed of folds, sampling and audit")


class RationalesConfig(CommonConfig):
    """Parameters of the flow `rationales`."""

    labelled: SourceConfig = Field(description="The labelled set")
    generator: EngineSpec = Field(description="The model that says why an item has its label")
    rationales: RationaleSettings = Field(default=RationaleSettings(), description="How it is asked")


class PseudoLabelsConfig(CommonConfig):
    """Parameters of the flow `pseudo_labels`."""

    unlabelled: SourceConfig = Field(description="The pool")
    labelled: SourceConfig | None = Field(
        default=None, description="The labelled set, which the teacher labels too, blind: trust is calibrated on it"
    )
    teacher: EngineSpec = Field(description="The model that labels it")
    student: AnyStudent | None = Field(
        default=None, description="The students that `correction` trained under `output`, to be asked about the pool"
    )
    pseudo_labels: PseudoLabelSettings = Field(default=PseudoLabelSettings(), description="How, and what is kept")


class CorrectionConfig(CommonConfig):
    """Parameters of the flow `correction`."""

    labelled: SourceConfig = Field(description="The labelled set")
    teacher: EngineSpec = Field(description="The model that adjudicates, blind to the given label")
    student: AnyStudent = Field(description="The fold students: lora (the default), probe or external")
    correction: CorrectionSettings = Field(default=CorrectionSettings(), description="Audit and gate")


class EmitConfig(CommonConfig):
    """Parameters of the flow `emit`; it reads the folders of the stages before it under `output`."""

    labelled: SourceConfig | None = Field(default=None, description="The labelled set")
    unlabelled: SourceConfig | None = Field(default=None, description="The pool")
    evaluation: SourceConfig | None = Field(default=None, description="Held-out items, which are never taught")
    emit: EmitSettings = Field(default=EmitSettings(), description="What is written")
    rationales: RationaleSettings = Field(
        default=RationaleSettings(), description="What reasons are too alike, and what becomes of items without one"
    )
    stages: tuple[StageName, ...] = Field(
        default=("rationales", "pseudo_labels", "correction"), description="Stages whose results count"
    )


class DistillConfig(CommonConfig):
    """Parameters of the flow `distill`: the whole way. Stages whose keys are left out are skipped."""

    labelled: SourceConfig | None = Field(default=None, description="The labelled set (rationales, correction)")
    unlabelled: SourceConfig | None = Field(default=None, description="The pool (pseudo-labels)")
    evaluation: SourceConfig | None = Field(
        default=None, description="Held-out items: neither they nor nearly equal ones are taught"
    )
    generator: EngineSpec | None = Field(default=None, description="Says why an item has its label (rationales)")
    teacher: EngineSpec | None = Field(default=None, description="Labels the pool, adjudicates corrections")
    student: AnyStudent | None = Field(default=None, description="Fold students (correction)")
    rationales: RationaleSettings = Field(default=RationaleSettings(), description="How rationales are asked for")
    pseudo_labels: PseudoLabelSettings = Field(default=PseudoLabelSettings(), description="How the pool is labelled")
    correction: CorrectionSettings = Field(default=CorrectionSettings(), description="How labels are corrected")
    emit: EmitSettings = Field(default=EmitSettings(), description="What is written")
    evaluation: SourceConfig | None = Field(
        default=None, description="Held-out items: kept out of training, and what students are measured on"
    )
    test: SourceConfig | None = Field(default=None, description="Items that `evaluate` predicts to a CSV file")
    evaluate: "EvaluateSettings" = Field(
        default_factory=lambda: EvaluateSettings(), description="How students are compared (`labelstill evaluate`)"
    )

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.labelled is None and self.unlabelled is None:
            raise ValueError("needs `labelled`, `unlabelled` or both, each with manifest and images")
        if self.generator is not None and self.labelled is None:
            raise ValueError("`generator` gives reasons for labelled items: add `labelled`, or leave it out")
        if self.student is not None and (self.labelled is None or self.teacher is None):
            raise ValueError("`student` (correction) needs `labelled` and a `teacher` to adjudicate")
        return self

    def stage_configs(self) -> tuple["RationalesConfig | PseudoLabelsConfig | CorrectionConfig | EmitConfig", ...]:
        """The configuration of each stage that is to run, in order."""
        common = {name: getattr(self, name) for name in CommonConfig.model_fields}
        stages: list[RationalesConfig | PseudoLabelsConfig | CorrectionConfig | EmitConfig] = []
        if self.labelled and self.generator:
            stages.append(
                RationalesConfig(**common, labelled=self.labelled, generator=self.generator, rationales=self.rationales)
            )
        if self.labelled and self.teacher and self.student:
            stages.append(
                CorrectionConfig(
                    **common,
                    labelled=self.labelled,
                    teacher=self.teacher,
                    student=self.student,
                    correction=self.correction,
                )
            )
        if self.unlabelled and self.teacher:
            stages.append(
                PseudoLabelsConfig(
                    **common,
                    unlabelled=self.unlabelled,
                    labelled=self.labelled,
                    teacher=self.teacher,
                    student=self.student,
                    pseudo_labels=self.pseudo_labels,
                )
            )
        done: list[StageName] = []
        for stage in stages:
            if isinstance(stage, RationalesConfig):
                done.append("rationales")
            elif isinstance(stage, PseudoLabelsConfig):
                done.append("pseudo_labels")
            else:
                done.append("correction")
        stages.append(
            EmitConfig(
                **common,
                labelled=self.labelled,
                unlabelled=self.unlabelled,
                evaluation=self.evaluation,
                emit=self.emit,
                rationales=self.rationales,
                stages=tuple(done),
            )
        )
        return tuple(stages)

    def evaluate_config(self) -> "EvaluateConfig":
        """The configuration that measures what this one makes; raises ConfigError where it says too little for that."""
        if self.evaluation is None:
            raise ConfigError("evaluate needs `evaluation`: manifest and images of held-out items with labels")
        if not isinstance(self.student, StudentSpec):
            raise ConfigError("evaluate needs `student` of kind lora: base and how it is trained")
        names = {*CommonConfig.model_fields, "labelled", "unlabelled", "evaluation", "test", "student", "evaluate"}
        return EvaluateConfig(**{name: getattr(self, name) for name in names})


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


class EvaluateConfig(CommonConfig):
    """Parameters of the flow `evaluate`; it reads what a run has left under `output`."""

    labelled: SourceConfig | None = Field(default=None, description="The labelled set of the run")
    unlabelled: SourceConfig | None = Field(default=None, description="The pool of the run")
    evaluation: SourceConfig = Field(description="Held-out items, with labels or with `truth`")
    test: SourceConfig | None = Field(default=None, description="Items to be predicted to a CSV file")
    student: StudentSpec = Field(description="The student that is trained on each variant")
    evaluate: EvaluateSettings = Field(default=EvaluateSettings(), description="Variants, seeds, steps")


class DemoConfig(Settings):
    """Parameters of the flow `demo`."""

    output: Path = Field(default=Path("artifacts/demo"), description="Folder of data, models and run")
    seed: int = Field(default=7, description="Seed of the demo's data")
    labelled: int = Field(default=400, ge=40, description="Labelled items")
    unlabelled: int = Field(default=400, ge=40, description="Items of the pool")
    folds: int = Field(default=5, ge=2, description="Fold students")
    review_budget: int = Field(default=60, ge=0, le=60, description="Items put before the stand-in reviewer")
    training: float = Field(default=1.0, gt=0, le=1, description="Share of the models' usual training (tests: less)")


def load_config(path: Path) -> DistillConfig:
    """Read a YAML configuration; raises ConfigError naming file, key and mend."""
    data = read_yaml(path, ConfigError, "give the path of a YAML configuration (README, 'Your own data', shows one)")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping with keys such as pack, labelled, output")
    try:
        return DistillConfig.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(str(x) for x in e['loc']) or 'configuration'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(lines)) from error
