"""The configuration: one pydantic model a flow, the same keys in YAML and in the web UI's form."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from tasks.correction.settings import CorrectionSettings
from tasks.dataset.settings import ApprovalSettings, DriftSettings, EmitSettings
from tasks.errors import ConfigError
from tasks.evaluation.settings import EvaluateSettings
from tasks.items.settings import SourceConfig
from tasks.models.engines.engine import check_engine
from tasks.models.engines.ray.cluster import Runner
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import BudgetSettings
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.rationales.settings import RationaleSettings
from tasks.settings import Settings
from tasks.storage.yaml_files import read_yaml
from tasks.students.settings import ExternalSpec, ProbeSpec, StudentSpec

StageName = Literal["rationales", "pseudo_labels", "correction"]
"""The stages whose results `emit` merges."""


def _get_kind(student: Any) -> str:
    return student.get("kind", "lora") if isinstance(student, dict) else student.kind


def _replace_one_of(schema: dict[str, Any]) -> None:
    """Prefect's server takes an object without `kind` for every kind at once, which `oneOf` forbids."""
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
        schema.pop("discriminator", None)


AnyStudent = Annotated[
    Annotated[StudentSpec, Tag("lora")] | Annotated[ProbeSpec, Tag("probe")] | Annotated[ExternalSpec, Tag("external")],
    Discriminator(_get_kind),
    Field(json_schema_extra=_replace_one_of),
]


class CommonConfig(Settings):
    """What every flow needs."""

    pack: str
    """Name of a pack under templates/, or a folder."""
    output: Path
    """Folder of the run; a rerun with the same folder goes on where it was."""
    ledger: Path = Path("artifacts/ledger.sqlite")
    """Every answer ever paid for, shared by all runs."""
    images: Path = Path("artifacts/images")
    """Images as models see them, made once and shared by all runs."""
    texts: Path = Path("artifacts/texts")
    """Text read off images (packs with `ocr`), shared by all runs."""
    shard_size: int = Field(default=500, ge=1)
    """Answers a task run; aim at half a minute or more."""
    seed: int = 0
    """Seed of folds, sampling and audit."""
    runner: Runner = "threads"
    """threads: this machine; or a Ray cluster, for shards and vLLM servers."""


class RationalesConfig(CommonConfig):
    """Parameters of the flow `rationales`."""

    labelled: SourceConfig
    """The labelled set."""
    generator: EngineSpec
    """The model that says why an item has its label."""
    rationales: RationaleSettings = RationaleSettings()
    """How it is asked."""


class PseudoLabelsConfig(CommonConfig):
    """Parameters of the flow `pseudo_labels`."""

    unlabelled: SourceConfig
    """The pool."""
    labelled: SourceConfig | None = None
    """The labelled set, which the teacher labels too, blind: trust is calibrated on it."""
    teacher: EngineSpec
    """The model that labels it."""
    student: AnyStudent | None = None
    """The students that `correction` trained under `output`, to be asked about the pool."""
    pseudo_labels: PseudoLabelSettings = PseudoLabelSettings()
    """How, and what is kept."""


class CorrectionConfig(CommonConfig):
    """Parameters of the flow `correction`."""

    labelled: SourceConfig
    """The labelled set."""
    teacher: EngineSpec
    """The model that adjudicates, blind to the given label."""
    student: AnyStudent
    """The fold students: lora (the default), probe or external."""
    correction: CorrectionSettings = CorrectionSettings()
    """Audit and gate."""


class SetsConfig(CommonConfig):
    """The sets of a run, any of which may be left out."""

    labelled: SourceConfig | None = None
    """The labelled set."""
    unlabelled: SourceConfig | None = None
    """The pool of items without labels."""
    evaluation: SourceConfig | None = None
    """Held-out items: kept out of training, and used to measure students."""


class EmitConfig(SetsConfig):
    """Parameters of the flow `emit`; it reads the folders of the stages before it under `output`."""

    emit: EmitSettings = EmitSettings()
    """What is written."""
    candidate: bool = False
    """Only merge, into <output>/candidate: nothing for trainers, and no version."""
    rationales: RationaleSettings = RationaleSettings()
    """What reasons are too alike, and what becomes of items without one."""
    stages: tuple[StageName, ...] = ("rationales", "pseudo_labels", "correction")
    """Stages whose results count."""


Narrowed = TypeVar("Narrowed", bound=CommonConfig)
AnyStage = RationalesConfig | PseudoLabelsConfig | CorrectionConfig | EmitConfig


class DistillConfig(SetsConfig):
    """Parameters of the flow `distill`: the whole way. Stages whose keys are left out are skipped."""

    generator: EngineSpec | None = None
    """Says why an item has its label (rationales)."""
    teacher: EngineSpec | None = None
    """Labels the pool, adjudicates corrections."""
    student: AnyStudent | None = None
    """Fold students (correction)."""
    rationales: RationaleSettings = RationaleSettings()
    """How rationales are asked for."""
    pseudo_labels: PseudoLabelSettings = PseudoLabelSettings()
    """How the pool is labelled."""
    correction: CorrectionSettings = CorrectionSettings()
    """How labels are corrected."""
    emit: EmitSettings = EmitSettings()
    """What is written."""
    test: SourceConfig | None = None
    """Items that `evaluate` predicts to a CSV file."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """How students are compared (`labelstill evaluate`)."""

    budget: BudgetSettings = BudgetSettings()
    """What this run may spend."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if self.labelled is None and self.unlabelled is None:
            raise ValueError("needs `labelled`, `unlabelled` or both, each with manifest and images")
        if self.generator is not None and self.labelled is None:
            raise ValueError("`generator` gives reasons for labelled items: add `labelled`, or leave it out")
        if self.student is not None and (self.labelled is None or self.teacher is None):
            raise ValueError("`student` (correction) needs `labelled` and a `teacher` to adjudicate")
        if self.budget.cost is not None and not any(spec.prices.of_tokens for spec in self.engines):
            raise ValueError("`budget.cost` limits nothing without `prices` of an engine: add {prompt: …, output: …}")
        return self

    @property
    def engines(self) -> list[EngineSpec]:
        """The models that are asked, but for students."""
        specs = (self.generator, self.teacher, self.pseudo_labels.second_teacher)
        return [spec for spec in specs if spec is not None]

    def check_engines(self) -> None:
        """Raise EngineError, with the fix, for an engine that can't be opened here; nodes of a cluster say it."""
        if self.runner == "threads":
            for spec in self.engines:
                check_engine(spec)

    def list_stage_configs(self) -> tuple[AnyStage, ...]:
        """Return the configuration of each stage that is to run, in order."""
        stages: dict[StageName, AnyStage] = {}
        if self.labelled and self.generator:
            stages["rationales"] = self._narrow(RationalesConfig)
        if self.labelled and self.teacher and self.student:
            stages["correction"] = self._narrow(CorrectionConfig)
        if self.unlabelled and self.teacher:
            stages["pseudo_labels"] = self._narrow(PseudoLabelsConfig)
        return (*stages.values(), self._narrow(EmitConfig, stages=tuple(stages)))

    def make_evaluate_config(self) -> "EvaluateConfig":
        """The configuration that measures what this one makes; raises ConfigError where it says too little for that."""
        if self.evaluation is None:
            raise ConfigError("evaluate needs `evaluation`: manifest and images of held-out items with labels")
        if not isinstance(self.student, StudentSpec):
            raise ConfigError("evaluate needs `student` of kind lora: base and how it is trained")
        return self._narrow(EvaluateConfig)

    def _narrow(self, kind: type[Narrowed], **more: object) -> Narrowed:
        """Return the part of this configuration that `kind` has keys for."""
        own = {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}
        return kind.model_validate(own | more)


class RelabelConfig(DistillConfig):
    """Parameters of the flow `relabel`: those of `distill`, and when what it makes is published."""

    drift: DriftSettings = DriftSettings()
    """From where on a new version is held back."""
    approval: ApprovalSettings = ApprovalSettings()
    """Whether a person is asked."""
    publish: bool = False
    """Publish whatever the drift: to release what is held back."""


class EvaluateConfig(CommonConfig):
    """Parameters of the flow `evaluate`; it reads what a run has left under `output`."""

    labelled: SourceConfig | None = None
    """The labelled set of the run."""
    unlabelled: SourceConfig | None = None
    """The pool of the run."""
    evaluation: SourceConfig
    """Held-out items, with labels or with `truth`."""
    test: SourceConfig | None = None
    """Items to be predicted to a CSV file."""
    student: StudentSpec
    """The student that is trained on each variant."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Variants, seeds, steps."""


class DemoConfig(Settings):
    """Parameters of the flow `demo`."""

    output: Path = Path("artifacts/demo")
    """Folder of data, models and run."""
    seed: int = 7
    """Seed of the demo's data."""
    labelled: int = Field(default=400, ge=40)
    """Labelled items."""
    unlabelled: int = Field(default=400, ge=40)
    """Items of the pool."""
    folds: int = Field(default=5, ge=2)
    """Fold students."""
    review_budget: int = Field(default=60, ge=0, le=60)
    """Items put before the stand-in reviewer."""
    training: float = Field(default=1.0, gt=0, le=1)
    """Share of the models' usual training (tests: less)."""


Loaded = TypeVar("Loaded", bound=DistillConfig)


def load_config(path: Path, kind: type[Loaded] = DistillConfig) -> Loaded:
    """Read a YAML configuration; raises ConfigError naming file, key and mend."""
    data = read_yaml(path, ConfigError, "give the path of a YAML configuration (README, 'Your own data', shows one)")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping with keys such as pack, labelled, output")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(str(x) for x in e['loc']) or 'configuration'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(lines)) from error
