"""What items consist of: texts, images, recordings and boxes; and the base of all records."""

import hashlib
from enum import StrEnum
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def digest_of(value: object) -> str:
    """Return the SHA-256 digest (hex) of a JSON value, written as UTF-8 with sorted keys."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


class ImageRef(Record):
    """An image file that passed its checks. Made by `items`; read by `prompts`, `models` and `dataset`."""

    path: str  # absolute; records never contain an image's bytes
    sha256: str
    width: int = Field(gt=0)  # in pixels, as is `height`, after applying the EXIF orientation
    height: int = Field(gt=0)


class VideoRef(Record):
    """The frames taken from a recording, which stand for it from here on. Made by `items`; read by many packages.

    The same frames go to every model and into every training set. Each frame is an image file in the cache, at most
    as large as the settings allow; all have the same size. The token budget may leave frames out.
    """

    path: str  # absolute; the recording, or the first of the image files that it was given as
    sha256: str  # of the recording; of the digests of all its image files if it was given as these
    frames: tuple[ImageRef, ...] = Field(min_length=2)  # an even number
    times: tuple[float, ...]  # of each frame, in seconds from the start; never falling
    seconds: float = Field(ge=0)  # how long the recording is

    @model_validator(mode="after")
    def _have_one_time_per_frame(self) -> "VideoRef":
        if len(self.times) != len(self.frames) or len(self.frames) % 2:
            raise ValueError(f"{len(self.frames)} frames at {len(self.times)} times; both must be the same even number")
        return self

    @property
    def fps(self) -> float:
        """Return how many of these frames are shown per second: what models are told."""
        span = self.times[-1] - self.times[0]
        return (len(self.times) - 1) / span if span > 0 else 1.0


class Box(Record):
    """A rectangle on an item's image, in pixels of the upright image. Made by `items`; read by many packages."""

    image: int = Field(default=0, ge=0)  # position of the image among the item's images, from 0
    ref: str = ""  # what is in it: a label, or the words that it shows
    corners: tuple[float, float, float, float]  # left, top, right, bottom

    @field_validator("corners")
    @classmethod
    def _have_an_area(cls, corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        if not (0 <= corners[0] < corners[2] and 0 <= corners[1] < corners[3]):
            raise ValueError(f"{corners} are not left < right and top < bottom, none below 0")
        return corners


class BoxForm(StrEnum):
    """How a generation of Qwen-VL writes boxes (tasks/prompts/box_forms.py)."""

    QWEN2 = "qwen2_vl"
    QWEN2_5 = "qwen2_5_vl"
    QWEN3 = "qwen3_vl"

    @property
    def in_pixels(self) -> bool:
        """Return whether the coordinates are pixels of the resized image, not thousandths."""
        return self is BoxForm.QWEN2_5


class TextPart(Record):
    """A piece of an item's text. Made by `items`; read by `prompts`, and by the token budget, which may drop turns."""

    type: Literal["text"] = "text"
    text: str
    turn: int = 0  # number of the turn that it belongs to; turn 0 is never dropped


class ImagePart(Record):
    """An image among an item's texts. Made by `items`; read by `prompts` and the token budget."""

    type: Literal["image"] = "image"
    image: ImageRef
    turn: int = 0


class VideoPart(Record):
    """A recording among an item's texts. Made by `items`; read by `prompts` and the token budget."""

    type: Literal["video"] = "video"
    video: VideoRef
    turn: int = 0


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


def digest_part(part: Part) -> str:
    """Return what identifies the content of `part`: its text, or its file's digest."""
    if part.type == "text":
        return part.text
    return part.image.sha256 if part.type == "image" else part.video.sha256
