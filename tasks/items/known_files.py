"""What image files were found to be, remembered: an intake of a grown set opens only new and changed files."""

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
from tasks.records import ImageRef
from tasks.storage.digest_cache import DigestCache

Found = ImageRef | Unusable
"""What a file is, or why it can't be used."""

GRANULE_NS = 2_000_000_000
"""Nanoseconds: file systems round a file's time of change, FAT to 2 s, and none in use to more."""
# For a file that breaks off or can't be reached, disk or memory may be to blame: it is looked at each time.
_LASTING = frozenset({Reason.IMAGE_EMPTY, Reason.NOT_AN_IMAGE, Reason.IMAGE_TOO_LARGE, Reason.IMAGE_TOO_THIN})
_AT_ONCE = 500


@dataclass(frozen=True)
class Seen:
    """A file as it was at a time, by all that tells cheaply whether it is another now."""

    state: str
    """Size, time of change (ns) and inode; empty where there is no file."""
    changed_ns: int
    at_ns: int

    @classmethod
    def of(cls, path: Path) -> "Seen":
        """The file as it is now."""
        # Not the inode's own time of change: an export that links to the file sets it.
        at = time.time_ns()
        try:
            found = path.stat()
        except OSError:
            return cls("", at, at)
        return cls(f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}", found.st_mtime_ns, at)

    @property
    def settled(self) -> bool:
        """Whether every later change gives the file another time of change.

        One that was changed just now may be changed again within the clock's granule, and look the same. Source: the
        "racily clean" entries of Git's index (Documentation/technical/racy-git).
        """
        return bool(self.state) and self.changed_ns + GRANULE_NS <= self.at_ns


class KnownFiles:
    """What image files were found to be, kept in the file `file`; for this pixel limit, Pillow and way of checking.

    A file that is overwritten in place with as many bytes, and then given its old time of change, passes for unchanged.
    """

    def __init__(self, file: Path, max_pixels: int) -> None:
        """Raise StorageError when the file can't be opened or made."""
        rules = hashlib.sha256(Path(__file__).with_name("images.py").read_bytes()).hexdigest()[:12]
        self._cache = DigestCache(file, f"{max_pixels}/{PIL.__version__}/{rules}")
        self._new: dict[bytes, bytes] = {}

    def __enter__(self) -> "KnownFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def known(self, paths: Iterable[Path]) -> dict[Path, Found]:
        """Return what is remembered of those files that are as they were then."""
        by_key = {os.fsencode(path): path for path in paths}
        known = {by_key[key]: orjson.loads(value) for key, value in self._cache.get(by_key).items()}
        return {path: _found(path, fields) for path, (state, *fields) in known.items() if state == Seen.of(path).state}

    def keep(self, path: Path, seen: Seen, found: Found) -> None:
        """Remember what a file was found to be, which was looked at after it was `seen`.

        Left out is what may not last: a file that has changed since or may do so unseen, and a fault that may be the
        machine's.
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
