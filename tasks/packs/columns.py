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

    @property
    def named(self) -> tuple[str, ...]:
        """Return the names of all fields that the manifest has, except for boxes, which few manifests have."""
        return tuple(name for name in (self.id, self.instruction, self.image, self.output) if name is not None)

    @property
    def read(self) -> tuple[str, ...]:
        """Return the names of all fields that are read if a manifest has them."""
        return self.named if self.boxes is None else (*self.named, self.boxes)

    @property
    def needed(self) -> tuple[str, ...]:
        """Return the names of required fields: the id, and the instruction or, without instructions, the image."""
        first = (self.id, self.instruction if self.instruction is not None else self.image)
        return tuple(name for name in first if name is not None)

    @model_validator(mode="after")
    def _an_item_holds_something(self) -> "Columns":
        if self.image is None and self.instruction is None:
            raise ValueError("set the column of `image`, of `instruction`, or of both")
        if self.id is None and self.image is None:
            raise ValueError("id: set its column, or set `image`; items without an id are named after their images")
        if len(set(self.read)) < len(self.read):
            raise ValueError("the same column is given for two fields")
        return self


DEFAULT_COLUMNS = Columns(id="id", instruction="instruction", image="image", output="output", boxes="boxes")
