"""The settings that say where items are."""

from pathlib import Path

from tasks.settings import Settings


class SourceConfig(Settings):
    """A manifest and the folder of its images."""

    manifest: Path
    """File of items (JSON, JSON Lines, CSV or Parquet) or a folder of such files."""
    images: Path
    """Folder of the images; image names are relative to it and may not lead out of it."""
