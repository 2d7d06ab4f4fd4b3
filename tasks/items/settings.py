"""Where items come from."""

from pathlib import Path

from pydantic import Field

from tasks.settings import Settings


class SourceConfig(Settings):
    """A manifest and the folder its image names are relative to."""

    manifest: Path = Field(
        description="JSON array, JSON Lines, CSV or Parquet of id, instruction, image, output, or a folder of them"
    )
    images: Path = Field(description="Folder of the images; names that leave it are refused")
