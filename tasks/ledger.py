"""Every request's raw answer, durable and content-addressed: resume and reuse (rules 2 and 3).

One SQLite file in write-ahead mode. Several runs may share it; a torn tail is repaired by SQLite itself, a corrupt
file is set aside under another name and never deleted. Answers are flushed about once a second, so that a killed run
asks again for at most what was in flight plus one second of work.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock, Timer

from tasks.errors import LedgerError
from tasks.records import Generation, Outcome

# A row commit costs 0.02 ms in WAL mode with synchronous=NORMAL, a full sync 20 ms: hence NORMAL and a flush a second.
_FLUSH_SECONDS = 1.0
# Another run's flush holds the write lock for milliseconds, a copying backup for longer.
_LOCK_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    at REAL NOT NULL,
    outcome TEXT NOT NULL,
    engine TEXT NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_cached INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    seconds REAL NOT NULL,
    generation TEXT NOT NULL
) WITHOUT ROWID
"""


class Ledger:
    """Answers by request key. A context manager; safe to use from several threads and several processes.

    Raises LedgerError when the file can't be opened or written (a full disk, a folder without permission).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        """Where a corrupt file was moved on opening, if it was."""
        self._lock = Lock()
        self._pending: dict[str, Generation] = {}
        self._flushed_at = time.monotonic()
        self._timer: Timer | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"{path}: the ledger can't be opened: {error}") from error

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, keys: Iterable[str]) -> dict[str, Generation]:
        """The known answers among `keys`."""
        found: dict[str, Generation] = {}
        with self._lock:
            for chunk in _chunks(keys, 500):
                found |= {key: self._pending[key] for key in chunk if key in self._pending}
                marks = ",".join("?" * len(chunk))
                query = f"SELECT generation FROM answers WHERE key IN ({marks})"
                try:
                    rows: list[tuple[str]] = self._connection.execute(query, chunk).fetchall()
                except sqlite3.Error as error:
                    raise LedgerError(
                        f"{self.path}: answers can't be read: {error}; move the file away, run again"
                    ) from error
                for (text,) in rows:
                    generation = Generation.model_validate_json(text)
                    found[generation.key] = generation
        return found

    def put(self, generation: Generation) -> None:
        """Keep an answer; durable within about a second. A FAILED one is not kept: the next run asks again."""
        if generation.outcome is Outcome.FAILED:
            return
        with self._lock:
            self._pending[generation.key] = generation
            due = time.monotonic() - self._flushed_at >= _FLUSH_SECONDS
            if not due and self._timer is None:
                # An engine may take minutes from one batch to the next: the clock flushes when no put comes.
                self._timer = Timer(_FLUSH_SECONDS, self._flush_in_time)
                self._timer.daemon = True
                self._timer.start()
        if due:
            self.flush()

    def flush(self) -> None:
        """Write what is pending; raises LedgerError, keeping the answers in memory, when the disk refuses."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            rows = [
                (
                    *(g.key, time.time(), g.outcome, g.engine, g.tokens_in, g.tokens_cached, g.tokens_out, g.seconds),
                    g.model_dump_json(),
                )
                for g in self._pending.values()
            ]
            try:
                with self._connection:
                    # The first answer stands: two runs that asked the same at once must agree afterwards.
                    self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?,?,?,?,?)", rows)
            except sqlite3.Error as error:
                raise LedgerError(
                    f"{self.path}: answers can't be written: {error}; free disk space, run again"
                ) from error
            self._pending.clear()
            self._flushed_at = time.monotonic()

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._connection.execute("SELECT COUNT(*) FROM answers").fetchone()
        return int(count)

    def close(self) -> None:
        """Flush and close; safe to call twice."""
        if self._pending:
            self.flush()
        with self._lock:
            self._connection.close()

    def _flush_in_time(self) -> None:
        # The answers stay pending when this fails, so the next put or flush raises in the thread of the run.
        with suppress(LedgerError):
            self.flush()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self.set_aside = self.path.with_name(f"{self.path.name}.corrupt-{int(time.time())}")
            self.path.rename(self.set_aside)
            for tail in ("-wal", "-shm"):
                side = self.path.with_name(self.path.name + tail)
                if side.exists():
                    side.rename(self.set_aside.with_name(self.set_aside.name + tail))
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_LOCK_SECONDS, check_same_thread=False)
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_SCHEMA)
            connection.commit()
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for the lock when it changes the mode of a new file that another run opens at the same time.
    give_up = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)


def _chunks(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    for key in keys:
        chunk.append(key)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
