"""Keep every request and its raw answer on disk, so that no later run pays for them again.

The ledger is an SQLite file in write-ahead mode, which several runs may share; file.py defines its tables. SQLite
repairs an incomplete end of the file. A corrupt file is renamed, never deleted. A thread writes about once per second,
so after a run was killed, the next run asks again only what was in flight or answered in the last second. A row that
does not match its checksum is deleted, and its question is asked again.
"""

import sqlite3
import time
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from threading import Event, Lock, RLock, Thread

import orjson

from tasks.errors import LedgerError
from tasks.models.ledger.file import connect, is_corruption, open_ledger
from tasks.models.ledger.rows import COLUMNS, ROW_TEXT, Row, make_row, read_answer
from tasks.records import Generation, Outcome, Request

NOT_KEPT = frozenset({Outcome.FAILED, Outcome.TOO_LONG, Outcome.BAD_MEDIA})
"""Outcomes that are not kept. They cost nothing, and asking again may succeed with a working server, more context or a
restored image. Earlier releases kept BAD_MEDIA, even for faults of a server or a disk.
"""

_FLUSH_SECONDS = 0.8  # with the writing itself, an answer is on disk within a second
# the most that waits in memory; beyond it `put` writes itself, which slows a fast engine down to the disk's speed
_MOST_ROWS = 2048
_MOST_CHARACTERS = 8 << 20
_LOOKUP = 500

# not OR IGNORE, which would also hide violations of NOT NULL; the first answer to a key is kept, for all runs
_INSERT = (
    f"INSERT INTO answers ({','.join(COLUMNS)}) VALUES ({','.join('?' * len(COLUMNS))}) ON CONFLICT (key) DO NOTHING"
)
_INSERT_REQUEST = (
    "INSERT INTO requests (id, request) SELECT id, ? FROM answers WHERE key = ? ON CONFLICT (id) DO NOTHING"
)
_INSERT_TEXT = "INSERT INTO texts (id, text) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
# All answers in one row: Python releases the interpreter lock at each row, so next to a busy thread 500 rows took 1.2 s
# and one row takes 12 ms.
_SELECT = (
    f"SELECT group_concat(id || ' ' || hex(checksum) || ' ' || {ROW_TEXT}, char(10)) "
    "FROM answers WHERE key IN (SELECT value FROM json_each(?))"
)
# the checksum, because another process may have given the row number to a new answer
_DELETE = "DELETE FROM answers WHERE id = ? AND hex(checksum) = ?"
_DELETE_REQUEST = (
    "DELETE FROM requests WHERE id = ? AND NOT EXISTS (SELECT 1 FROM answers WHERE answers.id = requests.id)"
)


class Ledger:
    """Maps request keys to answers. A context manager; several threads and processes may use the same ledger.

    Raises LedgerError when the file cannot be opened or written, e.g. on a full disk or without permission.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer, self.notice = open_ledger(path)
        """A sentence about a corrupt or outdated file that was renamed; empty if there was none."""
        self._damaged = 0
        self._repaired = ""
        self._reader = connect(path)
        # `_lock` protects the batches and is held for microseconds; the other two are held while SQLite works
        self._lock = Lock()
        self._write_lock = RLock()
        self._read_lock = Lock()
        self._pending: dict[str, Row] = {}
        self._writing: dict[str, Row] = {}
        self._pending_characters = 0
        self._trouble = ""
        self._closing = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, keys: Iterable[str]) -> dict[str, Generation]:
        """Return the known answers, keyed by request key; raise LedgerError when the file cannot be read."""
        found: dict[str, Generation] = {}
        waiting = iter(keys)
        while chunk := list(islice(waiting, _LOOKUP)):
            with self._lock:
                # memory first: an answer is removed from it only after it can be read from the file
                for batch in (self._pending, self._writing):
                    found |= {key: batch[key].generation for key in chunk if key in batch}
            if unknown := [key for key in chunk if key not in found]:
                found |= {generation.key: generation for generation in self._read(unknown)}
        return found

    def put(self, request: Request, generation: Generation) -> None:
        """Keep a request and its answer on disk, within about a second, unless the answer is FAILED or TOO_LONG.

        Raises LedgerError when the last write failed (the answer is then kept in memory), and ValueError when the
        answer belongs to another request.
        """
        if request.key != generation.key:
            raise ValueError(f"the answer to {generation.key} was given for the request {request.key}")
        if generation.outcome in NOT_KEPT:
            return
        row = make_row(request, generation, time.time())
        with self._lock:
            if self._closing.is_set():
                raise LedgerError(f"{self.path}: the ledger is closed")
            if request.key not in self._pending:
                self._pending[request.key] = row
                self._pending_characters += row.size
            full = len(self._pending) > _MOST_ROWS or self._pending_characters > _MOST_CHARACTERS
            if self._thread is None:
                self._thread = Thread(target=self._keep_writing, name="ledger", daemon=True)
                self._thread.start()
        if full:
            self.flush()
        elif self._trouble:
            raise LedgerError(self._trouble)

    def __len__(self) -> int:
        with self._read_lock:
            (count,) = self._reader.execute("SELECT COUNT(*) FROM answers").fetchone()
        return int(count)

    def close(self) -> None:
        """Write the answers that are not on disk yet, and close the file; safe to call twice."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        finally:
            with self._write_lock, self._read_lock:
                self._reader.close()
                self._writer.close()

    @property
    def damage(self) -> str:
        """Return a sentence about damage that was found since the ledger was opened; empty if there was none."""
        rows = f"{self.path}: damaged answers, which are asked for again: {self._damaged}" if self._damaged else ""
        return "; ".join(filter(None, (self._repaired, rows)))

    def _read(self, keys: list[str]) -> list[Generation]:
        try:
            try:
                return self._check_rows(self._select(keys))
            except sqlite3.Error as error:
                if not is_corruption(error):
                    raise
                self._repair()
                return self._check_rows(self._select(keys))
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self.path}: answers cannot be read: {error}; move the file away and run again"
            ) from error

    def _select(self, keys: list[str]) -> list[str]:
        with self._read_lock:
            (text,) = self._reader.execute(_SELECT, (orjson.dumps(keys).decode(),)).fetchone()
        return [] if text is None else text.split("\n")

    def _repair(self) -> None:
        """Replace the corrupt file by a new one with the answers that can still be read."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()
            self._writer, self._repaired = open_ledger(self.path, thorough=True)
            self._reader = connect(self.path)

    def _check_rows(self, rows: list[str]) -> list[Generation]:
        """Return the answers in `rows`; delete those that are damaged or not to be kept, to make room for others."""
        found: list[Generation] = []
        useless: list[tuple[int, str]] = []
        for row in rows:
            number, checksum, text = row.split(" ")
            answer = read_answer(checksum, text)
            if answer is not None and answer.outcome not in NOT_KEPT:
                found.append(answer)
                continue
            self._damaged += answer is None
            useless.append((int(number), checksum))
        if useless:
            with self._write_lock, self._write() as writer:
                writer.executemany(_DELETE, useless)
                writer.executemany(_DELETE_REQUEST, ((number,) for number, _ in useless))
        return found

    def _keep_writing(self) -> None:
        while not self._closing.wait(_FLUSH_SECONDS):
            # if this fails, the answers stay in memory and the next put, flush or close raises in the run's thread
            with suppress(LedgerError):
                self.flush()

    def flush(self) -> None:
        """Write the answers that are not on disk yet; when that fails, keep them in memory and raise LedgerError."""
        with self._write_lock:
            for _ in range(2):  # first what a failed write has left, then what was added since
                with self._lock:
                    if not self._writing:
                        self._writing = self._pending
                        self._pending = {}
                        self._pending_characters = 0
                if not self._writing:
                    break
                try:
                    self._insert(self._writing.values())
                except sqlite3.Error as error:
                    self._trouble = f"{self.path}: answers cannot be written: {error}; free disk space and run again"
                    raise LedgerError(self._trouble) from error
                with self._lock:
                    self._writing = {}
            self._trouble = ""

    def _insert(self, rows: Collection[Row]) -> None:
        try:
            self._insert_once(rows)
        except sqlite3.Error as error:
            if not is_corruption(error):
                raise
            self._repair()
            self._insert_once(rows)

    def _insert_once(self, rows: Collection[Row]) -> None:
        with self._write() as writer:
            # texts are written with every batch: `prune` in another process may have deleted them
            writer.executemany(_INSERT_TEXT, {pair for row in rows for pair in row.texts.items()})
            writer.executemany(_INSERT, (row.values for row in rows))
            writer.executemany(_INSERT_REQUEST, ((row.request_json, row.generation.key) for row in rows))

    @contextmanager
    def _write(self) -> Generator[sqlite3.Connection]:
        """Context manager: write in one transaction; the caller holds the write lock."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:  # a full disk may have ended the transaction
                self._writer.execute("ROLLBACK")
            raise
