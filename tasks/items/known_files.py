"""What image files were found to be, remembered: an intake of a grown set opens only new and changed files.

One SQLite file that runs may share. It holds nothing that can't be found out again: one that is corrupt is begun anew.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import PIL
from filelock import FileLock

from tasks.errors import EngineError
from tasks.items import images as image_files
from tasks.items.refusals import Reason, Unusable
from tasks.records import ImageRef

Found = ImageRef | Unusable
"""What a file is, or why it can't be used."""

GRANULE_NS = 2_000_000_000
"""Nanoseconds: file systems round a file's time of change, FAT to 2 s, and none in use to more."""
# For a file that breaks off or can't be reached, disk or memory may be to blame: it is looked at each time.
_LASTING = frozenset({Reason.IMAGE_EMPTY, Reason.NOT_AN_IMAGE, Reason.IMAGE_TOO_LARGE, Reason.IMAGE_TOO_THIN})
_TABLE = "files_1"  # the number is raised when the columns change
_AT_ONCE = 500
_LOCK_SECONDS = 60.0


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
    """A context manager over the file `file`; for one thread. What it says holds for this pixel limit, this Pillow and
    this way of checking; another's is as unknown.

    A file that is overwritten in place with as many bytes, and then given its old time of change, passes for unchanged.
    """

    def __init__(self, file: Path, max_pixels: int) -> None:
        """Raises EngineError when the file can't be opened or made."""
        rules = hashlib.sha256(Path(image_files.__file__).read_bytes()).hexdigest()[:12]
        self._file = file
        self._recipe = f"{max_pixels}/{PIL.__version__}/{rules}"
        self._new: list[tuple[object, ...]] = []
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._store = self._opened()
        except (OSError, sqlite3.Error) as error:
            raise EngineError(f"{file}: can't be opened: {error}; mend the folder, or name another `images`") from error

    def __enter__(self) -> "KnownFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._write()
        self._store.close()

    def known(self, paths: Iterable[Path]) -> dict[Path, Found]:
        """What is remembered of those files that are as they were then."""
        ask = f"SELECT sha256, width, height, reason, detail FROM {_TABLE} WHERE path = ? AND state = ? AND recipe = ?"
        found: dict[Path, Found] = {}
        try:
            for path in paths:
                row = self._store.execute(ask, (os.fsencode(path), Seen.of(path).state, self._recipe)).fetchone()
                if row is not None:
                    found[path] = _found(path, *row)
        except sqlite3.OperationalError:  # another run holds it, or the disk gave way
            return {}
        except sqlite3.DatabaseError:
            self._store.close()
            self._store = self._anew()
            return {}
        return found

    def keep(self, path: Path, seen: Seen, found: Found) -> None:
        """Remember what a file was found to be, which was looked at after it was `seen`.

        Left out is what may not last: a file that has changed since or may do so unseen, and a fault that may be the
        machine's.
        """
        lasting = isinstance(found, ImageRef) or found.reason in _LASTING
        if not lasting or not seen.settled or Seen.of(path).state != seen.state:
            return
        self._new.append((os.fsencode(path), seen.state, self._recipe, *_columns(found)))
        if len(self._new) >= _AT_ONCE:
            self._write()

    def _write(self) -> None:
        # A full disk stops the run where it writes what can't be made anew; here the next intake opens the files again.
        with suppress(sqlite3.Error), self._store:
            self._store.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._new)
        self._new.clear()

    def _opened(self) -> sqlite3.Connection:
        try:
            return _connect(self._file)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            return self._anew()

    def _anew(self) -> sqlite3.Connection:
        # One run at a time, and the log first: left beside a new store, SQLite would play it into that one.
        with FileLock(f"{self._file}.lock", timeout=_LOCK_SECONDS):
            for tail in ("-wal", "-shm", ""):
                Path(f"{self._file}{tail}").unlink(missing_ok=True)
            return _connect(self._file)


def _connect(file: Path) -> sqlite3.Connection:
    store = sqlite3.connect(file, timeout=_LOCK_SECONDS)
    try:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("PRAGMA synchronous = NORMAL")
        store.execute(
            f"CREATE TABLE IF NOT EXISTS {_TABLE} (path BLOB PRIMARY KEY, state TEXT NOT NULL, recipe TEXT NOT NULL, "
            "sha256 TEXT, width INTEGER, height INTEGER, reason TEXT, detail TEXT) WITHOUT ROWID"
        )
    except BaseException:
        store.close()
        raise
    return store


def _columns(found: Found) -> tuple[object, ...]:
    if isinstance(found, ImageRef):
        return found.sha256, found.width, found.height, None, None
    return None, None, None, found.reason.value, found.detail.encode(errors="replace").decode()


def _found(
    path: Path, sha256: str | None, width: int | None, height: int | None, reason: str | None, detail: str | None
) -> Found:
    if sha256 is None or width is None or height is None:
        return Unusable(Reason(reason), detail or "")
    return ImageRef(path=str(path), sha256=sha256, width=width, height=height)
