"""The `student:` settings, one model per `kind`."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.json_schema import SkipJsonSchema

from tasks.dataset.export.trainer_files import Plain
from tasks.models.engines.spec import ServingSettings
from tasks.settings import MAX_PIXELS, MIN_PIXELS, Settings


class FoldSettings(Settings):
    """Settings that every kind of student has."""

    model_config = ConfigDict(protected_namespaces=())

    folds: int = Field(default=5, ge=2)
    """Number of folds; each student is trained without one of them."""
    repeats: int = Field(default=1, ge=1)
    """How often the labelled set is split into folds; each split has its own students."""
    seed: SkipJsonSchema[int] = 0
    """Seed of every random choice in training: initialisation, training order, inner validation."""

    def seed_of(self, repeat: int) -> int:
        """Return the seed of probes and external trainers in a repeat."""
        return self.seed + 1000 * repeat


class ScoringSettings(ServingSettings):
    """How trained students are asked."""

    engine: Literal["auto", "local", "vllm"] = "auto"
    """Engine that runs the students; auto uses vllm on a GPU, else local."""


class CheckpointSettings(FoldSettings):
    """Settings of students that start from a Qwen-VL checkpoint."""

    base: str
    """Hugging Face name or local folder of the Qwen-VL checkpoint that students start from."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face base."""
    trust_remote_code: SkipJsonSchema[bool] = False
    """As at the top level."""
    reasons: Literal["never", "always", "where_given"] = "never"
    """never: train on the label alone and ask for it alone; always: train on and ask for a reason before the label,
    and leave out items without a reason; where_given: train on the reasons that exist, but ask for the label alone."""
    scoring: ScoringSettings = ScoringSettings()
    """How the trained students are asked."""
    min_pixels: SkipJsonSchema[int] = MIN_PIXELS
    """As at the top level."""
    max_pixels: SkipJsonSchema[int] = MAX_PIXELS
    """As at the top level."""


class StudentSpec(CheckpointSettings):
    """Settings of LoRA students (`kind: lora`)."""

    kind: Literal["lora"] = "lora"
    """Low-rank adapters of Qwen-VL, trained by labelstill itself."""
    loss: Literal["hard", "soft"] = "hard"
    """soft: `evaluate` also trains students that learn the teacher's probabilities of a pseudo-labelled item's labels
    instead of its label alone (variant `soft`). Items with a reason, and those of the labelled set, keep one label."""
    epochs: float = Field(default=3.0, gt=0)
    """Passes over the training items."""
    steps: int | None = Field(default=None, ge=1)
    """Number of updates; overrides `epochs`."""
    batch_size: int = Field(default=4, ge=1)
    """Items per batch."""
    gradient_accumulation: int = Field(default=4, ge=1)
    """Number of batches whose gradients are added up for one update."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate of the cosine schedule."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the adapters; their scale, `lora_alpha`, is twice as large."""
    gradient_checkpointing: bool = True
    """Save memory; training then takes about a third longer."""
    parallel: int = Field(default=1, ge=1)
    """Number of folds trained at the same time on a machine without GPUs, each in its own process with one CPU thread.
    On a machine with GPUs, each GPU trains one fold at a time."""
    report_to: tuple[str, ...] = ()
    """Services that also receive the loss, such as swanlab or tensorboard; install their packages first."""


class ProbeSpec(FoldSettings):
    """Settings of probe students (`kind: probe`)."""

    kind: Literal["probe"] = "probe"
    """A classifier on frozen features, for CPUs."""
    images: Literal["histograms", "embeddings", "none"] = "histograms"
    """Image features: histograms of colours and edges, or a model's embeddings."""
    embedding_model: str | None = None
    """Name or folder of the Qwen-VL checkpoint for `images: embeddings`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.images == "embeddings") != (self.embedding_model is not None):
            raise ValueError("`images: embeddings` and `embedding_model` belong together; set both or neither")
        return self


class ExternalSpec(CheckpointSettings):
    """Settings of students trained by an external trainer (`kind: external`)."""

    kind: Literal["external"] = "external"
    """Students trained by another program through its command line."""
    trainer: Literal["llamafactory", "swift"]
    """The trainer: LLaMA-Factory or ms-swift 4."""
    adapter: bool = True
    """Train low-rank adapters; false: the whole language model."""
    template: str | None = None
    """Name of a configuration in templates/students/, or a path; none: chosen by `trainer` and `adapter`."""
    settings: dict[str, Plain] = Field(default_factory=dict)
    """Trainer options that replace those of the template; null removes an option."""
    command: tuple[str, ...] = ()
    """Command line that starts the trainer, with ${config} for the configuration file; empty: the trainer's default."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables for the trainer, e.g. CUDA_VISIBLE_DEVICES."""
    deepspeed: str | None = None
    """DeepSpeed configuration: zero2, zero3 or a path; none: no DeepSpeed."""
    max_tokens: int = Field(default=32768, ge=256)
    """Maximum tokens of a training example."""

    @model_validator(mode="after")
    def _command_knows_its_configuration(self) -> Self:
        if self.command and not any("${config}" in word for word in self.command):
            raise ValueError("`command` must contain ${config}, e.g. [llamafactory-cli, train, ${config}]")
        return self


def _get_kind(student: Any) -> str:
    return student.get("kind", "lora") if isinstance(student, dict) else student.kind


def _replace_one_of(schema: dict[str, Any]) -> None:
    """Replace `oneOf` by `anyOf` in a JSON schema, because an object without `kind` may match several kinds."""
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
        schema.pop("discriminator", None)


AnyStudent = Annotated[
    Annotated[StudentSpec, Tag("lora")] | Annotated[ProbeSpec, Tag("probe")] | Annotated[ExternalSpec, Tag("external")],
    Discriminator(_get_kind),
    Field(json_schema_extra=_replace_one_of),
]
MeasuredStudent = Annotated[
    Annotated[StudentSpec, Tag("lora")] | Annotated[ProbeSpec, Tag("probe")],
    Discriminator(_get_kind),
    Field(json_schema_extra=_replace_one_of),
]
"""The students that `evaluate` trains."""
