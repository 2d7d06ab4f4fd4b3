"""The settings that say where items are."""

from pathlib import Path

from pydantic import Field

from tasks.settings import Settings


class SourceConfig(Settings):
    """A manifest and the folder of its images."""

    manifest: Path = Field(description="File of items (JSON, JSON Lines, CSV or Parquet) or a folder of such files")
    images: Path = Field(description="Folder of the images; image names are relative to it and may not lead out of it")
