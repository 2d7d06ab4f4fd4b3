"""Students: models trained on the labelled set itself, to be asked about items that they did not see."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class StudentSpec(BaseModel):
    """How fold students are trained: the `student:` key of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    base: str = Field(
        description="Hugging Face name or local folder of the Qwen-VL checkpoint that students start from"
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hugging Face base")
    trust_remote_code: bool = Field(default=False, description="Allow the base's own code to run; off unless asked for")
    folds: int = Field(default=5, ge=2, description="K: each student is trained without one of K parts")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the training part")
    batch_size: int = Field(default=4, ge=1, description="Items a step on the device")
    gradient_accumulation: int = Field(default=4, ge=1, description="Steps added up before an update")
    learning_rate: float = Field(default=1e-4, gt=0, description="Peak of the cosine schedule")
    lora_rank: int = Field(default=16, ge=1, description="Rank of the low-rank adapters of the language model")
    lora_alpha: int = Field(default=32, ge=1, description="Scale of the adapters (times rank⁻¹)")
    gradient_checkpointing: bool = Field(default=True, description="Less memory for a third more time")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="Weights' type")
    seed: int = Field(default=0, description="Seed of folds, initialisation and order")
    seconds_a_fold: float | None = Field(
        default=None, gt=0, description="Stop a fold's training after this many seconds; none: no limit"
    )
    scoring_batch_size: int = Field(default=8, ge=1, description="Items a batch when the student is asked")
    min_pixels: int = Field(default=56 * 56, ge=28 * 28, description="Images are enlarged to at least this area")
    max_pixels: int = Field(default=768 * 28 * 28, ge=28 * 28, description="Images are shrunk to at most this area")
