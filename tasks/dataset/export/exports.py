"""Training sets in the formats that trainers read; each room enforces its reader's own rules."""

import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.records import Example
from tasks.storage.files import writing

ImagePaths = Literal["absolute", "relative", "copy"]


class Format(StrEnum):
    """What a set can be written as; each gets a folder of this name."""

    LLAMAFACTORY = "llamafactory"
    SWIFT = "swift"
    SWIFT2 = "swift2"
    QWEN = "qwen"
    VISION_START = "vision_start"
    TRL = "trl"
    LABELS = "labels"


class ExportSpec(BaseModel):
    """What is written for which trainer: the `emit.export:` key of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
            raise ValueError("each format may be named once")
        return formats


class Reason(StrEnum):
    """Why a format can't hold an example."""

    TURNS_DO_NOT_ALTERNATE = "turns_do_not_alternate"
    IMAGES_DO_NOT_MATCH = "images_do_not_match"
    IMAGE_UNREADABLE = "image_unreadable"
    NOT_ONE_IMAGE = "not_one_image"
    NOT_ONE_TURN = "not_one_turn"
    SYSTEM_TURN = "system_turn"
    PATH_UNFIT = "path_unfit"
    NO_LABEL = "no_label"
    TOO_LONG = "too_long"


class NotHeld(ValueError):
    """A format can't hold this example: its reader would skip, misread or refuse it."""

    def __init__(self, example: Example, reason: Reason, detail: str) -> None:
        super().__init__(f"item {example.sample_id}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An example that is not in a format's files, and why."""

    sample_id: str
    format: Format
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Exported:
    """What `write_exports` wrote."""

    files: tuple[Path, ...]
    """All but the copied images."""
    rows: dict[Format, int]
    """Rows of each format, both subsets together."""
    left_out: tuple[LeftOut, ...]


def write_exports(folder: Path, name: str, examples: Iterable[Example], spec: ExportSpec) -> Exported:
    """Write `examples` in every format of `spec`, each into `folder/<format>`, in one pass.

    Examples are taken one by one and none is held. Validation examples go to files of their own, `<name>_validation`,
    which the ready configurations name. Beside each format's data, but for `labels`, lies provenance.jsonl: a line a
    row, in the rows' order, `row` counted from 0 within its subset. What a format can't hold is in left_out.jsonl of
    `folder`. Nothing is seen of all this before the end; then `images/` and the formats' folders are replaced as
    wholes, and those of formats that are not written any more go. Raises StorageError for a full disk; what was there
    before then stays.
    """
    from tasks.dataset.export.placing import ImageNames, put_in_place, write_left_out
    from tasks.dataset.export.ready import write_ready
    from tasks.dataset.export.writers import open_writer

    folder = folder.resolve()
    scratch = folder / ".exports"  # what a killed run left there goes too
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    left_out: list[LeftOut] = []
    rows: Counter[Format] = Counter()
    try:
        names = ImageNames(spec.image_paths, folder, scratch)
        with writing(folder), ExitStack() as stack:
            writers = {
                f: stack.enter_context(closing(open_writer(f, scratch / f, name, names, spec))) for f in spec.formats
            }
            for example in examples:
                for format, writer in writers.items():
                    try:
                        writer.write(example)
                        rows[format] += 1
                    except NotHeld as error:
                        left_out.append(LeftOut(example.sample_id, format, error.reason, error.detail))
        for format in spec.formats:
            write_ready(format, scratch / format, folder, name, spec)
        write_left_out(scratch / "left_out.jsonl", left_out)
        files = put_in_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Exported(files, {format: rows[format] for format in spec.formats}, tuple(left_out))
