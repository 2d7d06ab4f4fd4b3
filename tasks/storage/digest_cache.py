"""Keep what was found out about files, by digest or path, in a SQLite file that runs may share.

It holds nothing that can't be found out again, so a corrupt file is deleted and begun again, and one that is locked or
can't be written stops no run.
"""

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.errors import StorageError

_log = logging.getLogger("labelstill")

_LOCK_SECONDS = 60.0


class DigestCache:
    """Values by key, for one recipe: what was stored under another is unknown. With `file` None, kept in memory.

    Each call opens the file by itself, so a cache may be used from any thread, and copied into other processes.
    """

    def __init__(self, file: Path | None, recipe: str) -> None:
        """Raise StorageError when the file can't be opened or made."""
        self._file = file
        self._recipe = recipe
        self._held: dict[Any, Any] = {}
        self._has_warned = False
        if file is None:
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open(file).close()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._begin_again(file, error)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{file}: can't be opened: {error}; check the folder, or name another") from error

    def get(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """Return the values of those keys (texts or bytes) that are known."""
        if self._file is None:
            return {key: self._held[key] for key in keys if key in self._held}
        query = "SELECT value FROM entries WHERE key = ? AND recipe = ?"
        try:
            with closing(self._open(self._file)) as store:
                rows = ((key, store.execute(query, (key, self._recipe)).fetchone()) for key in keys)
                return {key: row[0] for key, row in rows if row is not None}
        except sqlite3.OperationalError:  # another run holds it, or the disk gave way
            return {}
        except sqlite3.DatabaseError as error:
            self._begin_again(self._file, error)
            return {}

    def put(self, values: Mapping[Any, Any]) -> None:
        """Store values (texts, bytes or signed 64-bit integers) by key."""
        if self._file is None:
            self._held.update(values)
        elif values:
            rows = [(key, self._recipe, value) for key, value in values.items()]
            try:
                with closing(self._open(self._file)) as store, store:
                    store.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
            except sqlite3.Error as error:
                # A full disk stops the run where it writes what can't be made again.
                if not self._has_warned:
                    _log.warning(
                        "%s cannot be written (%s): the next run repeats the work; free disk space, or check the "
                        "permissions of the file and its folder", self._file, error,
                    )  # fmt: skip
                self._has_warned = True

    def _open(self, file: Path) -> sqlite3.Connection:
        store = sqlite3.connect(file, timeout=_LOCK_SECONDS)
        try:
            store.execute("PRAGMA journal_mode = WAL")
            store.execute("PRAGMA synchronous = NORMAL")
            store.execute(
                "CREATE TABLE IF NOT EXISTS entries (key, recipe, value, PRIMARY KEY (key, recipe)) WITHOUT ROWID"
            )
        except BaseException:
            store.close()
            raise
        return store

    def _begin_again(self, file: Path, error: Exception) -> None:
        _log.warning("%s is corrupt (%s): it is begun again, and what it held is found out again", file, error)
        # One run at a time, and the log first: left beside a new store, SQLite would play it into that one.
        with FileLock(f"{file}.lock", timeout=_LOCK_SECONDS):
            for tail in ("-wal", "-shm", ""):
                Path(f"{file}{tail}").unlink(missing_ok=True)
            self._open(file).close()
