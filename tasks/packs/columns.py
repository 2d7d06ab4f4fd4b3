"""The names that an item's fields have in a manifest, as columns or keys."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator


def _not_blank(text: str) -> str:
    if not text.strip() or text != text.strip():
        raise ValueError("must not be empty, and must not begin or end with a space")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]


class Columns(BaseModel):
    """The names of an item's fields in a manifest; None for a field that the manifest does not have."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Text | None = None
    instruction: Text | None = None
    image: Text | None = None
    output: Text | None = None
    boxes: Text | None = None
    """Rectangles on the images, in one of the forms that tasks/items/boxes.py reads."""
    video: Text | None = None
    """Recordings: names of video files, or lists of the names of image files."""
    fps: Text | None = None
    """Frames per second of recordings that are given as image files."""

    @property
    def named(self) -> tuple[str, ...]:
        """Return the names of all fields that the manifest has, except for those that few manifests have."""
        return tuple(name for name in (self.id, self.instruction, self.image, self.output) if name is not None)

    @property
    def read(self) -> tuple[str, ...]:
        """Return the names of all fields that are read if a manifest has them."""
        rare = (self.boxes, self.video, self.fps)
        return (*self.named, *(name for name in rare if name is not None))

    @property
    def needed(self) -> tuple[str, ...]:
        """Return the names of required fields: the id, and the instruction or, without instructions, the media."""
        first = (self.id, self.instruction or self.image or self.video)
        return tuple(name for name in first if name is not None)

    @model_validator(mode="after")
    def _an_item_holds_something(self) -> "Columns":
        media = self.image or self.video
        if media is None and self.instruction is None:
            raise ValueError("set the column of `image`, `video` or `instruction`, or several of them")
        if self.id is None and media is None:
            raise ValueError("id: set its column, or set `image`; items without an id are named after their images")
        if len(set(self.read)) < len(self.read):
            raise ValueError("the same column is given for two fields")
        return self


DEFAULT_COLUMNS = Columns(
    id="id", instruction="instruction", image="image", output="output", boxes="boxes", video="video", fps="fps"
)
