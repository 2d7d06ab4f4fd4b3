"""Store the frames of recordings as image files in a folder that all runs share, so that each is decoded once."""

import hashlib
import os
import shutil
from pathlib import Path
from secrets import token_hex

import orjson

from tasks.errors import StorageError
from tasks.items.video_frames import Frames
from tasks.media import ImageRef, VideoRef, digest_of
from tasks.storage.files import report_full_disk

_LIST = "frames.json"


class FrameCache:
    """Maps the digest of a recording to its frames, for one way of choosing and shrinking them: the `recipe`.

    Each recording has a subfolder with its frames and a list of them. A subfolder appears whole or not at all, so
    threads, processes and runs may share the folder.
    """

    def __init__(self, folder: Path, recipe: object) -> None:
        self._folder = folder.absolute()
        self._recipe = digest_of(recipe)[:12]

    def find(self, sha256: str, path: Path) -> VideoRef | None:
        """Return the frames of the recording at `path`, whose digest is `sha256`; None unless all are stored."""
        folder = self._name_folder(sha256)
        try:
            fields, sizes = orjson.loads((folder / _LIST).read_bytes())
            frames = [frame | {"path": str(folder / frame["path"])} for frame in fields["frames"]]
            is_whole = all(os.path.getsize(f["path"]) == size for f, size in zip(frames, sizes, strict=True))
        except (OSError, ValueError):
            return None
        return VideoRef.model_validate(fields | {"path": str(path), "frames": frames}) if is_whole else None

    def write(self, sha256: str, path: Path, frames: Frames) -> VideoRef:
        """Store the frames of a recording and return them; raises StorageError if the folder cannot be written."""
        folder = self._name_folder(sha256)
        temporary = folder.with_name(f".{folder.name}.{token_hex(4)}")
        try:
            with report_full_disk(folder):
                temporary.mkdir(parents=True)
                named = {f"{number:04}{frames.suffix}": picture for number, picture in enumerate(frames.pictures)}
                for name, picture in named.items():
                    (temporary / name).write_bytes(picture)
                listed = [
                    ImageRef(path=name, sha256=hashlib.sha256(p).hexdigest(), width=frames.width, height=frames.height)
                    for name, p in named.items()
                ]
                video = VideoRef(
                    path="", sha256=sha256, frames=tuple(listed), times=tuple(frames.times), seconds=frames.seconds
                )
                # no fsync: what a power cut damages is written again
                (temporary / _LIST).write_bytes(orjson.dumps([video.model_dump(), list(map(len, frames.pictures))]))
                if self.find(sha256, path) is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.rename(temporary, folder)
        except OSError as error:
            if self.find(sha256, path) is None:  # otherwise another process was faster
                why = f"{error.strerror or error}; check its permissions, or set `images` to another folder"
                raise StorageError(f"{self._folder} cannot be written: {why}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        found = self.find(sha256, path)
        assert found is not None, f"{folder} was removed while it was written"
        return found

    def _name_folder(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256}-{self._recipe}"
