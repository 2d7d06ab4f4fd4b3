"""Remember the results of checking images and recordings, so that only new and changed files are opened again."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from tasks.items.refusals import Reason, Unusable
from tasks.media import ImageRef, VideoRef
from tasks.storage.digest_cache import DigestCache

Checked = TypeVar("Checked", ImageRef, VideoRef)

KNOWN, UNPACKED, FRAMES = "known.sqlite", "unpacked", "frames"
"""Names in `CommonConfig.images`: the results of these checks, the images that were inside Parquet files, and the
frames of recordings."""

GRANULE_NS = 2_000_000_000
"""Nanoseconds to which file systems round modification times: 2 s for FAT, less for all others in use."""
# A truncated or unreachable file may be the fault of disk or memory: it is checked every time.
_LASTING = frozenset(
    {Reason.IMAGE_EMPTY, Reason.NOT_AN_IMAGE, Reason.IMAGE_TOO_LARGE, Reason.IMAGE_DEPTH, Reason.IMAGE_TOO_THIN}
    | {Reason.VIDEO_EMPTY, Reason.NOT_A_VIDEO, Reason.VIDEO_WITHOUT_FRAMES, Reason.VIDEO_TOO_LONG}
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


class KnownFiles(Generic[Checked]):
    """Stores the results of checking files in `file`, for one `recipe`: the code that checks them, and its limits.

    `restore` makes a result from a path and the stored fields; None if it has to be made again. A file counts as
    unchanged even if it was overwritten in place with as many bytes and its old modification time was then restored.
    """

    def __init__(self, file: Path, recipe: str, restore: Callable[[Path, list[Any]], Checked | None]) -> None:
        """Open the file; raises StorageError when it cannot be opened or created."""
        self._cache = DigestCache(file, recipe)
        self._restore = restore
        self._new: dict[bytes, bytes] = {}

    def __enter__(self) -> "KnownFiles[Checked]":
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def known(self, paths: Iterable[Path]) -> dict[Path, Checked | Unusable]:
        """Return the remembered results of those files that have not changed."""
        by_key = {os.fsencode(path): path for path in paths}
        stored = {by_key[key]: orjson.loads(value) for key, value in self._cache.get(by_key).items()}
        known: dict[Path, Checked | Unusable] = {}
        for path, (state, reason, fields) in stored.items():
            if state == Seen.of(path).state:
                found = Unusable(Reason(reason), *fields) if reason else self._restore(path, fields)
                if found is not None:
                    known[path] = found
        return known

    def keep(self, path: Path, seen: Seen, found: Checked | Unusable) -> None:
        """Remember the result of checking a file whose metadata before the check was `seen`.

        The result is not stored if the file has changed since or could change unnoticed, or if the fault may have been
        caused by the machine.
        """
        lasting = not isinstance(found, Unusable) or found.reason in _LASTING
        if not lasting or not seen.settled or Seen.of(path).state != seen.state:
            return
        self._new[os.fsencode(path)] = orjson.dumps([seen.state, *_list_fields(found)])
        if len(self._new) >= _AT_ONCE:
            self._write()

    def _write(self) -> None:
        self._cache.put(self._new)
        self._new = {}


def _list_fields(found: ImageRef | VideoRef | Unusable) -> tuple[str, list[object]]:
    """Return the reason code, empty for a good file, and what else is stored."""
    if isinstance(found, Unusable):
        return found.reason.value, [found.detail.encode(errors="replace").decode()]
    return "", [found.sha256, *([found.width, found.height] if isinstance(found, ImageRef) else [])]


def restore_image(path: Path, fields: list[Any]) -> ImageRef:
    """Return the image at `path` from the fields that were stored of it."""
    sha256, width, height = fields
    return ImageRef(path=str(path), sha256=sha256, width=width, height=height)


def digest_code(*modules: str) -> str:
    """Return a digest of the code of modules beside this one, whose results are not believed after a change."""
    code = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in modules]
    return hashlib.sha256(b"".join(code)).hexdigest()[:12]
