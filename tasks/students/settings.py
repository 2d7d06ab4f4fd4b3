"""How fold students are trained and asked: the `student:` key of a configuration, one model per `kind`."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from tasks.dataset.export.trainer_files import Plain
from tasks.settings import Settings


class FoldSettings(Settings):
    """What every kind of student has."""

    model_config = ConfigDict(protected_namespaces=())

    folds: int = Field(default=5, ge=2, description="K: each student is trained without one of K parts")
    repeats: int = Field(default=1, ge=1, description="How often all folds are made and trained, with another seed")
    seed: int = Field(default=0, description="Seed of folds, initialisation and order")

    def seed_of(self, repeat: int) -> int:
        """Return the seed of a repeat's probes and foreign trainers."""
        return self.seed + 1000 * repeat


class CheckpointSettings(FoldSettings):
    """What students have that start from a Qwen-VL checkpoint."""

    base: str = Field(
        description="Hugging Face name or local folder of the Qwen-VL checkpoint that students start from"
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hugging Face base")
    trust_remote_code: bool = Field(default=False, description="Allow the base's own code to run; off unless asked for")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="Weights' type")
    scoring_engine: Literal["auto", "local", "vllm"] = Field(
        default="auto",
        description="What asks the students; vllm serves all folds' adapters by one server; auto: vllm on a GPU",
    )
    scoring_batch_size: int = Field(default=8, ge=1, description="Items per batch when the student is asked")
    min_pixels: int = Field(default=56 * 56, ge=28 * 28, description="Images are enlarged to at least this area")
    max_pixels: int = Field(default=768 * 28 * 28, ge=28 * 28, description="Images are shrunk to at most this area")


class StudentSpec(CheckpointSettings):
    """How LoRA students are trained: the `student:` key of a configuration."""

    kind: Literal["lora"] = Field(default="lora", description="Qwen-VL with low-rank adapters, trained here")
    reasons: Literal["never", "always", "where_given"] = Field(
        default="never",
        description="always: reason before label, in teaching and asking, and items without a reason are not taught; "
        "where_given: taught with the reasons that there are, as the emitted set is, and asked for the label alone",
    )
    epochs: float = Field(default=3.0, gt=0, description="Passes over the training part")
    steps: int | None = Field(default=None, ge=1, description="Updates, instead of `epochs`")
    batch_size: int = Field(default=4, ge=1, description="Items per step on the device")
    gradient_accumulation: int = Field(default=4, ge=1, description="Steps added up before an update")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak of the cosine schedule")
    lora_rank: int = Field(default=16, ge=1, description="Rank of the low-rank adapters of the language model")
    lora_alpha: int = Field(default=32, ge=1, description="Scale of the adapters (times rank⁻¹)")
    gradient_checkpointing: bool = Field(default=True, description="Less memory for a third more time")
    seconds_a_fold: float | None = Field(
        default=None, gt=0, description="Stop a fold's training after this many seconds; none: no limit"
    )
    checkpoint_seconds: float = Field(
        default=120.0, gt=0, description="A killed training loses at most about this much of its work"
    )
    report_to: tuple[str, ...] = Field(
        default=(),
        description="Where transformers also sends the loss: swanlab, wandb, tensorboard … (installed apart)",
    )


class ProbeSpec(FoldSettings):
    """How probe students are trained: the `student:` key of a configuration, with `kind: probe`."""

    kind: Literal["probe"] = Field(default="probe", description="A classifier on frozen features; minutes on a CPU")
    ngrams: tuple[int, int] = Field(default=(1, 3), description="Shortest and longest character n-gram of texts")
    images: Literal["histograms", "embeddings", "none"] = Field(
        default="histograms", description="What is seen of images: colours and edges, or a model's vision tower"
    )
    embedding_model: str | None = Field(
        default=None, description="Name or folder of the Qwen-VL checkpoint whose vision tower is used (embeddings)"
    )
    regularisation: float | None = Field(
        default=None, gt=0, description="C of the logistic regression; none: the best of a few on an inner split"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.images == "embeddings") != (self.embedding_model is not None):
            raise ValueError("`images: embeddings` and `embedding_model` go together: set both or neither")
        if not 1 <= self.ngrams[0] <= self.ngrams[1]:
            raise ValueError("`ngrams` must be two lengths, the shorter first, e.g. [1, 3]")
        return self


class ExternalSpec(CheckpointSettings):
    """How a foreign trainer makes the students: the `student:` key of a configuration, with `kind: external`."""

    kind: Literal["external"] = Field(default="external", description="A trainer's own command line")
    trainer: Literal["llamafactory", "swift"] = Field(description="LLaMA-Factory, or ms-swift 4")
    adapter: bool = Field(default=True, description="Low-rank adapters; false: the whole language model is tuned")
    template: str | None = Field(
        default=None, description="A configuration in templates/students/, or a path; none: by `trainer` and `adapter`"
    )
    settings: dict[str, Plain] = Field(
        default_factory=dict, description="The trainer's options that differ from the template's; null leaves one out"
    )
    command: tuple[str, ...] = Field(
        default=(), description="Command line, with ${config} for the configuration; none: the trainer's usual one"
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Added to the environment, e.g. CUDA_VISIBLE_DEVICES or NPROC_PER_NODE"
    )
    deepspeed: str | None = Field(default=None, description="zero2, zero3, or the path of a DeepSpeed configuration")
    timeout_seconds: float | None = Field(
        default=None, gt=0, description="Longest time for a fold's training; none: no limit"
    )
    max_tokens: int = Field(default=32768, ge=256, description="Longest example, in tokens")

    @model_validator(mode="after")
    def _command_knows_its_configuration(self) -> Self:
        if self.command and not any("${config}" in word for word in self.command):
            raise ValueError("`command` must name the configuration, e.g. [llamafactory-cli, train, ${config}]")
        return self


AnySpec = StudentSpec | ProbeSpec | ExternalSpec
