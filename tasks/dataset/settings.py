"""What is merged and written, and how far a new version may move."""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from tasks.rationales.settings import NEAR
from tasks.settings import Settings

ImagePaths = Literal["absolute", "relative", "copy"]


class Format(StrEnum):
    """What a set can be written as; each gets a folder of this name, and is written by the file of this name in
    tasks/dataset/export/."""

    LLAMAFACTORY = "llamafactory"
    SWIFT = "swift"
    SWIFT2 = "swift2"
    QWEN = "qwen"
    VISION_START = "vision_start"
    TRL = "trl"
    LABELS = "labels"


class ExportSpec(Settings):
    """What is written for which trainer: the `emit.export:` key of a configuration."""

    formats: tuple[Format, ...] = Field(
        default=(Format.LLAMAFACTORY, Format.SWIFT, Format.QWEN, Format.TRL, Format.LABELS),
        description="llamafactory, swift (ms-swift 4), swift2 (ms-swift 2), qwen (Qwen's own script), vision_start "
        "(items of one image), trl (Parquet with the images in it), labels",
    )
    image_paths: ImagePaths = Field(
        default="absolute",
        description="How images are named: absolute; relative to the format's folder; copy: hard links or copies in "
        "`images/` beside it, named relative, so that the folder can be moved; rotated photos are written upright",
    )
    base: str = Field(
        default="Qwen/Qwen2-VL-7B-Instruct",
        description="Checkpoint that the ready training configurations start from: a name or a folder",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hugging Face base")
    min_pixels: int = Field(default=56 * 56, ge=28 * 28, description="Ready configurations: smallest area of an image")
    max_pixels: int = Field(default=768 * 28 * 28, ge=28 * 28, description="Ready configurations: its largest area")
    max_tokens: int = Field(
        default=32768,
        ge=256,
        description="Ready configurations: longest example, in tokens; what is clearly longer is left out of "
        "llamafactory, which would cut it without a word",
    )
    seed: int = Field(default=0, description="Ready configurations: seed of the training")

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if len(set(formats)) < len(formats):
            raise ValueError("a format is named twice; name each once")
        return formats


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
