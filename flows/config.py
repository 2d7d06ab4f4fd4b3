"""Define the configuration: one pydantic model per flow. YAML files and the web UI's forms use the same keys."""

from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from tasks.correction.settings import CorrectionSettings
from tasks.dataset.export.trainer_names import check_base
from tasks.dataset.settings import ApprovalSettings, DriftSettings, EmitSettings
from tasks.errors import ConfigError
from tasks.evaluation.settings import EvaluateSettings
from tasks.items.settings import SourceConfig, VideoSettings
from tasks.models.engines.engine import check_engine
from tasks.models.engines.ray.cluster import Runner
from tasks.models.engines.spec import EngineSpec
from tasks.models.packages import require_model_packages
from tasks.models.settings import AskSettings, BudgetSettings, TeacherSettings
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.rationales.settings import RationaleSettings
from tasks.settings import MAX_PIXELS, MIN_PIXELS, Settings, is_internal, spread_values
from tasks.storage.yaml_files import explain_errors, read_yaml
from tasks.students.settings import AnyStudent, ExternalSpec, MeasuredStudent, ProbeSpec, StudentSpec

StageName = Literal["rationales", "pseudo_labels", "correction"]
"""The stages whose results `emit` merges."""

_COMMON = ("pack", "labelled", "unlabelled", "evaluation", "generator", "teacher", "teachers", "student", "output")
"""The keys that the web UI's form shows first."""


def _arrange_form(schema: dict[str, Any]) -> None:
    """In a JSON schema, put common keys first, and require keys only without a `file` that may have them."""
    keys = schema["properties"]
    schema["properties"] = {k: keys[k] for k in _COMMON if k in keys} | keys
    required = schema.pop("required", [])
    schema["if"] = {"required": ["file"], "properties": {"file": {"type": "string"}}}
    schema["else"] = {"required": required}


class CommonConfig(Settings):
    """The keys that every flow has."""

    model_config = ConfigDict(json_schema_extra=_arrange_form)

    pack: str
    """Name of a pack under templates/, or the path of a pack's folder."""
    output: Path = Field(default_factory=lambda done: Path("artifacts") / Path(done.get("pack", "")).name)
    """Folder for the run's results; by default artifacts/<name of the pack>. Running again with the same folder
    continues the run."""
    ledger: Path = Path("artifacts/ledger.sqlite")
    """SQLite file that stores every answer, so that no answer is paid for twice. All runs can share it."""
    images: Path = Path("artifacts/images")
    """Folder for resized images and for the frames of recordings. All runs can share it."""
    texts: Path = Path("artifacts/texts")
    """Folder for text that was read from images, for packs with `ocr`. All runs can share it."""
    shard_size: int = Field(default=500, ge=1)
    """Number of answers that one task run collects. Choose it so that a task run takes at least 30 seconds."""
    min_pixels: int = Field(default=MIN_PIXELS, ge=28 * 28)
    """Minimum area of an image in pixels; smaller images are enlarged. Models, students and exports follow it."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=28 * 28)
    """Maximum area of an image in pixels; larger images are shrunk. Models, students and exports follow it. Qwen2-VL
    uses one token per 784 pixels."""
    video: VideoSettings = VideoSettings()
    """Which frames represent a recording."""
    trust_remote_code: bool = False
    """Allow Python code that comes with a model to run."""
    seed: int = 0
    """Random seed for folds, sampling, the audit, training and exports."""
    max_failed_share: float = Field(default=0.1, ge=0, le=1)
    """Share of a stage's questions of one kind that may fail (no, cut-off or unreadable answer); with more, the run
    fails. Fewer than 5 failures never fail a run. Unreadable images do not count."""
    runner: Runner = "threads"
    """Where work runs: `threads` means this machine; with `kind: ray`, shards and vLLM servers run on a Ray cluster."""
    limit: int | None = Field(default=None, ge=1)
    """Number of usable items of each set to use, spread evenly over the labels: for a first try (`run --limit`)."""
    file: Path | None = None
    """Path of a run.yaml whose settings are used, so that there is only one copy of them. Keys given here beside it
    take precedence. Keys of other flows in it are ignored."""

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        keys = cast(dict[str, Any], given)
        if keys.get("file") is not None:
            there = read_mapping(Path(keys["file"]))
            others = {
                key for kind in (RelabelConfig, EvaluateConfig) for key in kind.model_fields
            } - cls.model_fields.keys()
            keys = {k: v for k, v in (there | keys).items() if k != "file" and k not in others}
        return cls._complete(keys)

    @classmethod
    def _complete(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Return the keys with the values that are set once filled in everywhere."""
        names = ("min_pixels", "max_pixels", "trust_remote_code", "seed")
        shared = {name: given.get(name, cls.model_fields[name].default) for name in names}
        internal = {name for name, field in cls.model_fields.items() if is_internal(field)}
        own = {name: value for name, value in given.items() if name in internal}
        return spread_values(cls, {k: v for k, v in given.items() if k not in own}, shared) | own


class RationalesConfig(CommonConfig):
    """Parameters of the flow `rationales`."""

    labelled: SourceConfig
    """The labelled set."""
    generator: EngineSpec
    """The model that explains why an item has its label."""
    ask: AskSettings = AskSettings()
    """Votes, attempts, temperature and answer length."""
    rationales: RationaleSettings = RationaleSettings()
    """Which reasons are kept."""


class TeachersConfig(CommonConfig, TeacherSettings):
    """The keys of flows that ask teachers."""

    ask: AskSettings = AskSettings()
    """Votes, attempts, temperature and answer length."""
    generator: EngineSpec | None = None
    """The model that explains why an item has its label, and shortens what teachers thought."""
    rationales: RationaleSettings = RationaleSettings()
    """Which reasons are kept."""

    @model_validator(mode="after")
    def _check_thinking(self) -> Self:
        self.rationales.check_engines(self.panel, self.generator)
        return self


class PseudoLabelsConfig(TeachersConfig):
    """Parameters of the flow `pseudo_labels`."""

    unlabelled: SourceConfig
    """The pool of items without labels."""
    labelled: SourceConfig | None = None
    """The labelled set. The teacher labels these items too, without seeing their labels, to show how reliable it is."""
    student: AnyStudent | None = None
    """The students that the stage `correction` trained under `output`. They are asked about the pool too."""
    pseudo_labels: PseudoLabelSettings = PseudoLabelSettings()
    """How the pool is labelled and which labels are kept."""
    ask_only: SkipJsonSchema[bool] = False
    """Ask the teacher, but decide in a later run, because an earlier stage still waits for its answers."""

    @model_validator(mode="after")
    def _needs_teacher(self) -> Self:
        if not self.panel:
            raise ValueError("no teacher labels the pool: add `teacher` or `teachers`")
        return self


class CorrectionConfig(TeachersConfig):
    """Parameters of the flow `correction`."""

    labelled: SourceConfig
    """The labelled set."""
    student: AnyStudent
    """Kind of student that is trained on each fold: `lora` (the default), `probe` or `external`."""
    correction: CorrectionSettings = CorrectionSettings()
    """How labels are checked, reviewed and changed."""


class SetsConfig(CommonConfig):
    """The data sets of a run. Each of them is optional."""

    labelled: SourceConfig | None = None
    """The labelled set."""
    unlabelled: SourceConfig | None = None
    """The pool of items without labels."""
    evaluation: SourceConfig | None = None
    """Held-out items. They are kept out of training and used to measure students."""


class EmitConfig(SetsConfig):
    """Parameters of the flow `emit`, which reads the results of the earlier stages under `output`."""

    emit: EmitSettings = EmitSettings()
    """How the training set is merged and exported."""
    candidate: SkipJsonSchema[bool] = False
    """Write the new version to <output>/candidate without publishing it."""
    rationales: RationaleSettings = RationaleSettings()
    """Which reasons are too similar to be used, and what happens to items without a reason."""
    stages: SkipJsonSchema[tuple[StageName, ...]] = ("rationales", "pseudo_labels", "correction")
    """Stages whose results are merged."""


Narrowed = TypeVar("Narrowed", bound=CommonConfig)
AnyStage = RationalesConfig | PseudoLabelsConfig | CorrectionConfig | EmitConfig


class DistillConfig(SetsConfig, TeachersConfig):
    """Parameters of the flow `distill`, which runs all stages. A stage whose keys are missing is skipped."""

    student: AnyStudent | None = None
    """The fold students (stage `correction`): `lora` (the default), `probe` or `external`."""
    pseudo_labels: PseudoLabelSettings = PseudoLabelSettings()
    """How the pool is labelled and which labels are kept."""
    correction: CorrectionSettings = CorrectionSettings()
    """How labels are checked, reviewed and changed."""
    emit: EmitSettings = EmitSettings()
    """How the training set is merged and exported."""
    test: SourceConfig | None = None
    """Items whose labels `labelstill evaluate` predicts and writes to a CSV file."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """How `labelstill evaluate` compares students."""
    budget: BudgetSettings = BudgetSettings()
    """Limits on what this run may spend."""

    @classmethod
    def _complete(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Also name the students' base in the exports, unless the exports have a `base` of their own."""
        student, emit = given.get("student"), given.get("emit", {})
        if isinstance(student, dict) and "base" in student and isinstance(emit, dict):
            start: dict[str, Any] = {k: student[k] for k in ("base", "revision") if k in student}
            export = cast(dict[str, Any], emit).get("export", {})
            if isinstance(export, dict) and "base" not in export:
                given = super()._complete(given | {"emit": emit | {"export": export}})
                given["emit"]["export"] |= start
                return given
        return super()._complete(given)

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if self.labelled is None and self.unlabelled is None:
            raise ValueError("no data: add `labelled`, `unlabelled` or both, each with `manifest` and `images`")
        if self.generator is not None and self.labelled is None and not self.rationales.teach_thinking:
            raise ValueError("`generator` explains labelled items: add `labelled`, or remove `generator`")
        if self.student is not None and self.labelled is None:
            raise ValueError("`student` is trained on labelled items: add `labelled`, or remove `student`")
        if self.budget.cost is not None and not any(spec.prices.of_tokens for spec in self.engines):
            raise ValueError("`budget.cost` has no effect: add `prices: {prompt: …, output: …}` to an engine")
        return self

    @property
    def engines(self) -> list[EngineSpec]:
        """The configured models, except students."""
        specs = (self.generator, self.rationales.judge, *self.panel)
        return [spec for spec in specs if spec is not None]

    def check_engines(self, *, keys: bool = True) -> None:
        """Raise EngineError if this machine cannot run an engine or, with `keys`, if an API key is not set.

        Raises MissingPackage if the packages for a model or a student that is a model are missing, and ConfigError if
        a trainer does not know the base that an export names.

        With a cluster, engines and packages are not checked: its nodes do that.
        """
        check_base(self.emit.export)
        if self.runner == "threads":
            for spec in self.engines:
                check_engine(spec, key=keys)
            if isinstance(self.student, StudentSpec | ExternalSpec):
                require_model_packages(f"`student: {{kind: {self.student.kind}}}`")

    def to_smoke_run(self, limit: int) -> "DistillConfig":
        """Return the same run with `limit` items of each set and two folds, in the folder `output`/smoke."""
        student = self.student and self.student.model_copy(update={"folds": 2, "repeats": 1})
        return self.model_copy(update={"limit": limit, "student": student, "output": self.output / "smoke"})

    def to_search(self) -> CorrectionConfig:
        """Return the stage `correction` without any model: a probe student and, if a person has judged, verdicts.

        If the configuration has students of another kind, the results go to `output`/find_errors. Raises ConfigError
        without a labelled set.
        """
        if self.labelled is None:
            raise ConfigError("labelled: the key is missing; add `manifest` and `images` of the items to check")
        probe = isinstance(self.student, ProbeSpec)
        output = self.output if probe or self.student is None else self.output / "find_errors"
        student = self.student if probe else ProbeSpec()
        models = {"teacher": None, "teachers": (), "generator": None, "rationales": RationaleSettings()}
        return self.model_copy(update=models)._narrow(CorrectionConfig, student=student, output=output)

    def list_stage_configs(self) -> tuple[AnyStage, ...]:
        """Return the configuration of each stage to run, in the order in which the stages run."""
        stages: dict[StageName, AnyStage] = {}
        if self.labelled and self.generator:
            stages["rationales"] = self._narrow(RationalesConfig)
        if self.labelled and self.student:
            stages["correction"] = self._narrow(CorrectionConfig)
        if self.unlabelled and self.panel:
            stages["pseudo_labels"] = self._narrow(PseudoLabelsConfig)
        return (*stages.values(), self._narrow(EmitConfig, stages=tuple(stages)))

    def make_evaluate_config(self) -> "EvaluateConfig":
        """Return the configuration for `evaluate`. Raises ConfigError if a required key is missing."""
        if self.evaluation is None:
            raise ConfigError("evaluate needs `evaluation`: manifest and images of held-out items with labels")
        if isinstance(self.student, ExternalSpec):
            raise ConfigError("evaluate trains no `student` of kind external: set `kind: lora` or `kind: probe`")
        return self._narrow(EvaluateConfig, student=self.student or ProbeSpec())

    def _narrow(self, kind: type[Narrowed], **more: object) -> Narrowed:
        """Return a configuration of type `kind` with this configuration's values; `more` overrides some of them."""
        own = {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}
        return kind.model_validate(own | more)


class RelabelConfig(DistillConfig):
    """Parameters of the flow `relabel`: those of `distill`, and those that decide when a new version is published."""

    drift: DriftSettings = DriftSettings()
    """How much a new version may differ from the published one without being held back."""
    approval: ApprovalSettings = ApprovalSettings()
    """When a person is asked before a version is published."""
    publish: bool = False
    """Publish the version that was held back, exactly as it is. Nothing is asked or merged again."""
    undo: bool = False
    """Publish the previous version again, and hold back the one that is published now."""


class EvaluateConfig(CommonConfig):
    """Parameters of the flow `evaluate`, which reads a finished run's results under `output`."""

    labelled: SourceConfig | None = None
    """The labelled set that the run used."""
    unlabelled: SourceConfig | None = None
    """The pool that the run used."""
    evaluation: SourceConfig
    """Held-out items. Their labels are in their manifest or in `evaluate.truth`."""
    test: SourceConfig | None = None
    """Items whose labels are predicted and written to a CSV file."""
    student: MeasuredStudent = ProbeSpec()
    """The student that is trained on each variant of the set: `lora` (the default kind), or a `probe` in seconds."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Which variants of the set are compared, and the number of seeds and training steps."""


Loaded = TypeVar("Loaded", bound=DistillConfig)


def load_config(path: Path, kind: type[Loaded] = DistillConfig) -> Loaded:
    """Read a YAML configuration. Raises ConfigError, which names the file and each wrong key and says how to fix it."""
    data = read_mapping(path)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain_errors(path, error)) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the keys of a YAML configuration. Raises ConfigError if the file can't be read or contains no mapping."""
    data = read_yaml(path, ConfigError, "give the path of a YAML configuration (README, 'Your own data', shows one)")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping with keys such as `pack`, `labelled` and `output`")
    return cast(dict[str, Any], data)
