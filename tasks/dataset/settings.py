"""What is merged and written, and how far a new version may move."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.dataset.drift import Limits
from tasks.dataset.export.exports import ExportSpec
from tasks.rationales.settings import NEAR
from tasks.settings import Settings


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

    def limits(self) -> Limits:
        """The same for tasks/dataset/drift.py."""
        return Limits(**self.model_dump())
