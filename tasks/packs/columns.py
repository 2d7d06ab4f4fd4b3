"""The names of the columns or keys that hold an item's parts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """What a manifest calls an item's fields; None for one that it doesn't have."""

    id: str | None = "id"
    instruction: str | None = "instruction"
    image: str | None = "image"
    output: str | None = "output"

    @property
    def named(self) -> tuple[str, ...]:
        """The columns there are."""
        return tuple(name for name in (self.id, self.instruction, self.image, self.output) if name is not None)

    @property
    def needed(self) -> tuple[str, ...]:
        """Those without which there is no item; where it has no text, its image is all it has."""
        first = (self.id, self.instruction if self.instruction is not None else self.image)
        return tuple(name for name in first if name is not None)
