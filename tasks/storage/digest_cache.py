"""Cache results about files in a SQLite file that several runs may share; the key is a file's digest or path.

All results can be computed again. So a corrupt cache is replaced by an empty one, and a cache that is locked or cannot
be written stops no run.
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
    """Maps keys to values for one recipe, ignoring those stored under other recipes. Without a file, in memory only.

    Each call opens and closes the file, so a cache may be used from any thread and copied into other processes.
    """

    def __init__(self, file: Path | None, recipe: str) -> None:
        """Open the file; raises StorageError when it cannot be opened or created."""
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
                self._start_again(file, error)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{file}: cannot be opened: {error}; check the folder's permissions") from error

    def get(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """Return a map from each stored key among `keys` (text or bytes) to its value."""
        if self._file is None:
            return {key: self._held[key] for key in keys if key in self._held}
        query = "SELECT value FROM entries WHERE key = ? AND recipe = ?"
        try:
            with closing(self._open(self._file)) as store:
                rows = ((key, store.execute(query, (key, self._recipe)).fetchone()) for key in keys)
                return {key: row[0] for key, row in rows if row is not None}
        except sqlite3.OperationalError:  # another run has locked it, or the disk failed
            return {}
        except sqlite3.DatabaseError as error:
            self._start_again(self._file, error)
            return {}

    def put(self, values: Mapping[Any, Any]) -> None:
        """Store a value (text, bytes or signed 64-bit integer) per key. The first failure is logged; none is raised."""
        if self._file is None:
            self._held.update(values)
        elif values:
            rows = [(key, self._recipe, value) for key, value in values.items()]
            try:
                with closing(self._open(self._file)) as store, store:
                    store.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
            except sqlite3.Error as error:
                # A full disk stops the run where it writes results that cannot be computed again.
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

    def _start_again(self, file: Path, error: Exception) -> None:
        _log.warning(
            "%s is corrupt (%s): it is replaced by an empty file, and its results are computed again", file, error
        )
        # One run at a time, and the write-ahead log first: SQLite would replay an old log into the new file.
        with FileLock(f"{file}.lock", timeout=_LOCK_SECONDS):
            for tail in ("-wal", "-shm", ""):
                Path(f"{file}{tail}").unlink(missing_ok=True)
            self._open(file).close()
