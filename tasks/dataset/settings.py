"""Settings of the emitted set, its exports, and how much a new version may differ from the last one."""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from tasks.rationales.settings import NEAR
from tasks.settings import Settings

ImagePaths = Literal["absolute", "relative", "copy"]


class Format(StrEnum):
    """The export formats. The module of this name in tasks/dataset/export/ writes a folder of this name."""

    LLAMAFACTORY = "llamafactory"
    SWIFT = "swift"
    SWIFT2 = "swift2"
    QWEN = "qwen"
    VISION_START = "vision_start"
    TRL = "trl"
    LABELS = "labels"


class ExportSpec(Settings):
    """Which export formats are written, and how: the `emit.export:` key of a configuration."""

    formats: tuple[Format, ...] = (Format.LLAMAFACTORY, Format.SWIFT, Format.QWEN, Format.TRL, Format.LABELS)
    """Formats to write: llamafactory, swift (ms-swift 4), swift2 (ms-swift 2), qwen (Qwen's script), trl (Parquet that
    contains the images), vision_start (only items with one image), labels (CSV and JSON Lines)."""
    image_paths: ImagePaths = "absolute"
    """How exports refer to images. absolute: absolute paths; relative: paths relative to the format's folder; copy:
    images are linked or copied to `images/`, so that the folder can be moved, and rotated photos are saved upright."""
    base: str = "Qwen/Qwen2-VL-7B-Instruct"
    """Base checkpoint of the ready training configurations: a Hugging Face name or a local folder."""
    revision: str | None = None
    """Branch, tag or commit of `base` on Hugging Face."""
    min_pixels: int = Field(default=56 * 56, ge=28 * 28)
    """Smallest area of an image in pixels."""
    max_pixels: int = Field(default=768 * 28 * 28, ge=28 * 28)
    """Largest area of an image in pixels."""
    max_tokens: int = Field(default=32768, ge=256)
    """Longest training example in tokens. Clearly longer examples are left out of the llamafactory export, because
    LLaMA-Factory would truncate them silently."""
    seed: int = 0
    """Random seed of the ready training configurations."""

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if len(set(formats)) < len(formats):
            raise ValueError("`formats` lists a format more than once; list each format once")
        return formats


class MixSettings(Settings):
    """General-purpose conversations that are mixed in so that the model does not forget other abilities."""

    file: Path
    """JSON array or JSON Lines file of {"messages": [{"role", "content"}], "images": [file names]}."""
    images: Path | None = None
    """Folder that contains the images; default: the folder of `file`."""
    share: float = Field(default=0.1, gt=0, le=0.9)
    """Share of these examples in the whole training set."""


class EmitSettings(Settings):
    """How the results of the earlier stages are merged into one training set."""

    name: str = Field(default="labelstill", pattern=r"^[\w-]+$")
    """Name of the data set and of its files."""
    licence: str | None = None
    """Licence of the data set: an SPDX identifier or a name; without one the card warns."""
    reason_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the examples with a reason that are trained with it; the others are trained with the label only. A small
    model that only predicts labels learns them worse when many examples contain reasons."""
    reasons_alike: float = Field(default=NEAR, gt=0, le=1)
    """Two reasons that share at least this fraction of their character pairs count as alike, and only one of them is
    used."""
    waiting: Literal["keep", "drop"] = "keep"
    """Items that wait for review: keep them with their given label, or drop them."""
    transductive: bool = False
    """Also train on items of `evaluation` and their near-duplicates; the card then warns."""
    near_duplicates: Literal["drop", "keep"] = "drop"
    """Near-duplicates in image and text: drop all but one, or keep all."""
    mix: MixSettings | None = None
    """General-purpose examples to mix in; none by default."""
    validation_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of each label held out for validation; near-duplicates stay together."""
    export: ExportSpec = ExportSpec()
    """Export formats and their options."""


class DriftSettings(Settings):
    """How much a new version may differ from the last published one before a person must approve it."""

    relabelled: float = Field(default=0.05, ge=0, le=1)
    """Largest share of relabelled items."""
    removed: float = Field(default=0.1, ge=0, le=1)
    """Largest share of removed items."""
    balance: float = Field(default=0.1, ge=0, le=1)
    """Largest total variation distance between the label distributions: 0 is equal, 1 is disjoint."""
    confidence: float = Field(default=0.05, ge=0, le=1)
    """Largest drop of the mean expected precision of the pseudo-labels."""


class ApprovalSettings(Settings):
    """Whether a person approves a new version."""

    ask: Literal["drift", "always", "never"] = "never"
    """When to pause for approval in the web UI: if a limit of `drift` is exceeded, for every version, or never (a
    version that exceeds a limit is then held back)."""
    hours: float = Field(default=12.0, gt=0, le=240)
    """Hours to wait for an answer; without one the version is held back."""
