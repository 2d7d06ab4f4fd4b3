"""The settings that say where items are, and which frames stand for their recordings."""

from pathlib import Path

from pydantic import Field

from tasks.settings import Settings


class SourceConfig(Settings):
    """A manifest and the folder of its images and recordings."""

    manifest: Path
    """File of items (JSON, JSON Lines, CSV or Parquet) or a folder of such files."""
    images: Path = Field(default_factory=lambda done: _find_folder(done.get("manifest", Path())))
    """Folder of images and recordings; their names are relative to it and may not lead out of it. Default: that of the
    manifest."""


def _find_folder(manifest: Path) -> Path:
    return manifest if manifest.is_dir() else manifest.parent


class VideoSettings(Settings):
    """Which frames represent a recording. Models, students and exports get exactly these."""

    fps: float = Field(default=2.0, gt=0, le=60)
    """Frames taken per second of a recording."""
    max_frames: int = Field(default=32, ge=2, le=768)
    """Maximum number of frames of a recording; from a longer one they are taken at larger intervals."""
    max_pixels: int = Field(default=8192 * 28 * 28, ge=56 * 56)
    """Maximum number of pixels of all frames of a recording together; larger frames are shrunk. Qwen2-VL uses one token
    per 1,568 pixels."""
    max_seconds: float = Field(default=600, gt=0)
    """Maximum length of a recording; an item with a longer one is dropped."""
