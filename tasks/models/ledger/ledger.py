"""Every request and its raw answer, durable and content-addressed: resume and reuse (rules 2 and 3).

One SQLite file in write-ahead mode (its tables: file.py). Several runs may share it; a torn tail is repaired by
SQLite itself, a corrupt file is set aside under another name and never deleted. A thread of its own writes about once
a second, so that a killed run asks again for at most what was in flight plus one second of work.
"""

import sqlite3
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Event, Lock, Thread

import orjson
from pydantic import TypeAdapter, ValidationError

from tasks.errors import LedgerError
from tasks.models.ledger.file import COLUMNS, Row, connect, make_row, open_ledger
from tasks.records import Generation, Outcome, Request

NOT_KEPT = frozenset({Outcome.FAILED, Outcome.TOO_LONG})
"""Asking these again costs nothing that was paid for, and the next run may have a server that is up or longer."""

_FLUSH_SECONDS = 0.8  # and the writing: within a second from answer to disk
# What waits in memory at most; a put that finds more writes it itself, so a fast engine is slowed to the disk's pace.
_MOST_ROWS = 2048
_MOST_CHARACTERS = 8 << 20
_LOOKUP = 500

# NOT NULL must fail loudly, so no OR IGNORE. The first answer stands: two runs that asked the same must agree.
_INSERT = (
    f"INSERT INTO answers ({','.join(COLUMNS)}) VALUES ({','.join('?' * len(COLUMNS))}) ON CONFLICT (key) DO NOTHING"
)
_INSERT_REQUEST = (
    "INSERT INTO requests (id, request) SELECT id, ? FROM answers WHERE key = ? ON CONFLICT (id) DO NOTHING"
)
_INSERT_TEXT = "INSERT INTO texts (id, text) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
# One row for all: Python gives up its interpreter lock at each row that SQLite steps to, and beside a busy thread
# 500 steps took 1.2 s where this takes 12 ms.
_SELECT = "SELECT '[' || group_concat(generation) || ']' FROM answers WHERE key IN (SELECT value FROM json_each(?))"
_GENERATIONS = TypeAdapter(list[Generation])


class Ledger:
    """Answers by request key. A context manager; safe to use from several threads and several processes.

    Raises LedgerError when the file can't be opened or written (a full disk, a folder without permission).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer, self.notice = open_ledger(path)
        """One sentence for people about a corrupt file that was set aside; empty if there was none."""
        self._reader = connect(path)
        # `_lock` guards the batches and is held for microseconds; the other two are held while SQLite works.
        self._lock, self._write_lock, self._read_lock = Lock(), Lock(), Lock()
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
        """The known answers among `keys`; raises LedgerError when the file can't be read."""
        found: dict[str, Generation] = {}
        waiting = iter(keys)
        while chunk := list(islice(waiting, _LOOKUP)):
            with self._lock:
                # In this order: an answer leaves memory only after it can be read from the file.
                for batch in (self._pending, self._writing):
                    found |= {key: batch[key].generation for key in chunk if key in batch}
            if unknown := [key for key in chunk if key not in found]:
                found |= {generation.key: generation for generation in self._read(unknown)}
        return found

    def put(self, request: Request, generation: Generation) -> None:
        """Keep a question and its answer; durable within about a second. FAILED and TOO_LONG ones are not kept.

        Raises LedgerError, keeping the answer in memory, when the last write failed; ValueError when the answer is
        to another question.
        """
        if request.key != generation.key:
            raise ValueError(f"the answer {generation.key} is not to the request {request.key}")
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
        """Flush and close; safe to call twice."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        finally:
            with self._read_lock, self._write_lock:
                self._reader.close()
                self._writer.close()

    def _read(self, keys: list[str]) -> list[Generation]:
        try:
            with self._read_lock:
                (text,) = self._reader.execute(_SELECT, (orjson.dumps(keys).decode(),)).fetchone()
            return [] if text is None else _GENERATIONS.validate_json(text)
        except (sqlite3.Error, ValidationError) as error:
            why = str(error).splitlines()[0]
            raise LedgerError(f"{self.path}: answers can't be read: {why}; move the file away, run again") from error

    def _keep_writing(self) -> None:
        while not self._closing.wait(_FLUSH_SECONDS):
            # The answers stay in memory when this fails, and the next put, flush or close raises in the run's thread.
            with suppress(LedgerError):
                self.flush()

    def flush(self) -> None:
        """Write what is pending; raises LedgerError, keeping the answers in memory, when the disk refuses."""
        with self._write_lock:
            for _ in range(2):  # what a failed write left, and what came since
                with self._lock:
                    if not self._writing:
                        self._writing, self._pending = self._pending, {}
                        self._pending_characters = 0
                if not self._writing:
                    break
                try:
                    self._insert(self._writing.values())
                except sqlite3.Error as error:
                    self._trouble = f"{self.path}: answers can't be written: {error}; free disk space, run again"
                    raise LedgerError(self._trouble) from error
                with self._lock:
                    self._writing = {}
            self._trouble = ""

    def _insert(self, rows: Collection[Row]) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            # With each batch anew, never remembered: `prune` of another process may have deleted a text since.
            self._writer.executemany(_INSERT_TEXT, {pair for row in rows for pair in row.texts.items()})
            self._writer.executemany(_INSERT, (row.values for row in rows))
            self._writer.executemany(_INSERT_REQUEST, ((row.question, row.generation.key) for row in rows))
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:  # a full disk may have ended it
                self._writer.execute("ROLLBACK")
            raise
