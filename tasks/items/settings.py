"""The settings that say where items are."""

from pathlib import Path

from pydantic import Field

from tasks.settings import Settings


class SourceConfig(Settings):
    """A manifest and the folder of its images."""

    manifest: Path
    """File of items (JSON, JSON Lines, CSV or Parquet) or a folder of such files."""
    images: Path = Field(default_factory=lambda done: _find_folder(done.get("manifest", Path())))
    """Folder of the images; image names are relative to it and may not lead out of it. Default: the manifest's."""


def _find_folder(manifest: Path) -> Path:
    return manifest if manifest.is_dir() else manifest.parent
