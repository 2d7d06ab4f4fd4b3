"""Settings of the training set, its exports, and how much a new version may differ from the last one."""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic.json_schema import SkipJsonSchema

from tasks.settings import MAX_PIXELS, MIN_PIXELS, Settings

ImagePaths = Literal["absolute", "relative", "copy"]

DEFAULT_BASE = "Qwen/Qwen2-VL-7B-Instruct"


class Format(StrEnum):
    """The export formats. Each is written to the folder of the same name (tasks/dataset/export/exports.py)."""

    LLAMAFACTORY = "llamafactory"
    SWIFT = "swift"
    SWIFT2 = "swift2"
    QWEN = "qwen"
    VISION_START = "vision_start"
    TRL = "trl"
    LABELS = "labels"
    SWIFT_SOFT = "swift_soft"
    LLAMAFACTORY_PAIRS = "llamafactory_pairs"
    SWIFT_PAIRS = "swift_pairs"
    TRL_PAIRS = "trl_pairs"


class ExportSpec(Settings):
    """The export formats to write, and their options: the key `emit.export:` of a configuration."""

    formats: tuple[Format, ...] = (Format.LLAMAFACTORY, Format.SWIFT, Format.QWEN, Format.TRL, Format.LABELS)
    """Formats to write: llamafactory, swift (ms-swift 4), swift2 (ms-swift 2), qwen (Qwen's script), trl (Parquet that
    contains the images), vision_start (only items with one image), labels (CSV and JSON Lines); swift_soft (ms-swift 4
    with the teacher's probabilities as weights of rows); llamafactory_pairs, swift_pairs, trl_pairs (for DPO: reasons
    that end in the right label beside reasons that end in a wrong one)."""
    image_paths: ImagePaths = "absolute"
    """How exports refer to images. absolute: absolute paths; relative: paths relative to the format's folder; copy:
    images are linked or copied to `images/`, so that the folder can be moved. Files that trainers would load
    differently from what the models saw (rotated by EXIF, transparent, 16-bit) are always written to `images/` as the
    models saw them."""
    base: str = DEFAULT_BASE
    """Base checkpoint named in the ready-made training configurations: a Hugging Face name or a local folder; by
    default `student.base`, if there is one."""
    revision: SkipJsonSchema[str | None] = None
    """Branch, tag or commit of `base`: `student.revision`."""
    trust_remote_code: SkipJsonSchema[bool] = False
    """As at the top level."""
    min_pixels: SkipJsonSchema[int] = MIN_PIXELS
    """As at the top level."""
    max_pixels: SkipJsonSchema[int] = MAX_PIXELS
    """As at the top level."""
    max_tokens: int = Field(default=32768, ge=256)
    """Maximum length of a training example in tokens. Clearly longer examples are left out of the llamafactory export,
    because LLaMA-Factory would truncate them silently."""
    seed: SkipJsonSchema[int] = 0
    """As at the top level."""

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if len(set(formats)) < len(formats):
            raise ValueError("`formats` lists a format more than once; list each format once")
        return formats


class MixSettings(Settings):
    """General-purpose conversations to mix in, so that the model keeps its other abilities."""

    file: Path
    """JSON array or JSON Lines file with rows {"messages": [{"role", "content"}], "images": [file names]}."""
    images: Path | None = None
    """Folder that contains the images; default: the folder of `file`."""
    share: float = Field(default=0.1, gt=0, le=0.9)
    """Share of the whole training set that these conversations make up."""


class EmitSettings(Settings):
    """How the results of the earlier stages are merged into one training set."""

    name: str = Field(default="labelstill", pattern=r"^[\w-]+$")
    """Name of the data set and of its files."""
    licence: str | None = None
    """Licence of the data set: an SPDX identifier or a name. Without one, the card shows a warning."""
    reason_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the available reasons to train on; the other examples are trained with the label only. A small model
    that only predicts labels learns them less well if many examples contain reasons."""
    waiting: Literal["keep", "drop"] = "keep"
    """What to do with items that wait for review: keep them with their given label, or drop them."""
    transductive: bool = False
    """Also train on items that equal or nearly equal an item of `evaluation`; the card then shows a warning."""
    near_duplicates: Literal["drop", "keep"] = "drop"
    """What to do with items that are nearly the same in image and text: drop all but one, or keep all."""
    mix: MixSettings | None = None
    """General-purpose conversations to mix in; none by default."""
    validation_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of each label's items to hold out for validation. Near-duplicates are never separated."""
    export: ExportSpec = ExportSpec()
    """Export formats and their options."""


class DriftSettings(Settings):
    """How much a new version may differ from the last published one before a person must approve it."""

    relabelled: float = Field(default=0.05, ge=0, le=1)
    """Maximum share of items whose label may change."""
    removed: float = Field(default=0.1, ge=0, le=1)
    """Maximum share of items that may be removed."""
    balance: float = Field(default=0.1, ge=0, le=1)
    """Maximum total variation distance between the label distributions of the old and the new version (0 to 1)."""
    confidence: float = Field(default=0.05, ge=0, le=1)
    """Maximum drop in the pseudo-labels' mean expected precision."""


class ApprovalSettings(Settings):
    """Whether and how long to wait for a person's approval of a new version."""

    ask: Literal["drift", "always", "never"] = "never"
    """When to pause for approval in the web UI. drift: if a limit of `drift` is exceeded; always: for every version;
    never: hold back versions that exceed a limit."""
    hours: float = Field(default=12.0, gt=0, le=240)
    """Hours to wait for the answer; if none comes, the version is held back."""
