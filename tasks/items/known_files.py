"""Remember the results of checking image files, so that reading a set again opens only new and changed files."""

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import PIL

from tasks.items.refusals import Reason, Unusable
from tasks.media import ImageRef
from tasks.storage.digest_cache import DigestCache

Found = ImageRef | Unusable
"""The result of checking a file: its image, or why it cannot be used."""

KNOWN = "known.sqlite"
UNPACKED = "unpacked"
"""Names in `CommonConfig.images`: the results of image checks, and the images that were inside Parquet files."""
"""Name of the file with the results, in the folder of resized images that all runs share."""

GRANULE_NS = 2_000_000_000
"""Nanoseconds to which file systems round modification times: 2 s for FAT, less for all others in use."""
# A truncated or unreachable file may be the fault of disk or memory: it is checked every time.
_LASTING = frozenset(
    {Reason.IMAGE_EMPTY, Reason.NOT_AN_IMAGE, Reason.IMAGE_TOO_LARGE, Reason.IMAGE_DEPTH, Reason.IMAGE_TOO_THIN}
)
_AT_ONCE = 500


@dataclass(frozen=True)
class Seen:
    """A file's metadata at one time. Later metadata shows cheaply whether the file has changed."""

    state: str
    """Size, modification time (ns) and inode; empty if there is no file."""
    changed_ns: int
    at_ns: int

    @classmethod
    def of(cls, path: Path) -> "Seen":
        """Return the current metadata of a file."""
        # Not the inode's change time: an export that hard-links the file changes it.
        at = time.time_ns()
        try:
            found = path.stat()
        except OSError:
            return cls("", at, at)
        return cls(f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}", found.st_mtime_ns, at)

    @property
    def settled(self) -> bool:
        """Return whether any change from now on gives the file another modification time.

        A file that was just changed may be changed again within the clock's resolution and then looks the same. Source:
        the "racily clean" entries of Git's index (Documentation/technical/racy-git).
        """
        return bool(self.state) and self.changed_ns + GRANULE_NS <= self.at_ns


class KnownFiles:
    """Stores the results of checking images in `file`, for one pixel limit, Pillow version and version of images.py.

    An image counts as unchanged even if it was overwritten in place with as many bytes and its old modification time
    was then restored.
    """

    def __init__(self, file: Path, max_pixels: int) -> None:
        """Open the file; raises StorageError when it cannot be opened or created."""
        rules = hashlib.sha256(Path(__file__).with_name("images.py").read_bytes()).hexdigest()[:12]
        self._cache = DigestCache(file, f"{max_pixels}/{PIL.__version__}/{rules}")
        self._new: dict[bytes, bytes] = {}

    def __enter__(self) -> "KnownFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def known(self, paths: Iterable[Path]) -> dict[Path, Found]:
        """Return the remembered results of those files that have not changed."""
        by_key = {os.fsencode(path): path for path in paths}
        known = {by_key[key]: orjson.loads(value) for key, value in self._cache.get(by_key).items()}
        return {path: _found(path, fields) for path, (state, *fields) in known.items() if state == Seen.of(path).state}

    def keep(self, path: Path, seen: Seen, found: Found) -> None:
        """Remember the result of checking a file whose metadata before the check was `seen`.

        The result is not stored if the file has changed since or could change unnoticed, or if the fault may have been
        caused by the machine.
        """
        lasting = isinstance(found, ImageRef) or found.reason in _LASTING
        if not lasting or not seen.settled or Seen.of(path).state != seen.state:
            return
        self._new[os.fsencode(path)] = orjson.dumps([seen.state, *_fields(found)])
        if len(self._new) >= _AT_ONCE:
            self._write()

    def _write(self) -> None:
        self._cache.put(self._new)
        self._new = {}


def _fields(found: Found) -> list[object]:
    if isinstance(found, ImageRef):
        return [found.sha256, found.width, found.height]
    return [found.reason.value, found.detail.encode(errors="replace").decode()]


def _found(path: Path, fields: list[Any]) -> Found:
    if len(fields) == 2:
        return Unusable(Reason(fields[0]), fields[1])
    sha256, width, height = fields
    return ImageRef(path=str(path), sha256=sha256, width=width, height=height)
