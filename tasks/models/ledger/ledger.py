"""Every request and its raw answer, durable and content-addressed: resume and reuse (rules 2 and 3).

One SQLite file in write-ahead mode (its tables: file.py). Several runs may share it; a torn tail is repaired by
SQLite itself, a corrupt file is set aside under another name and never deleted. A thread of its own writes about once
a second, so that a killed run asks again for at most what was in flight plus one second of work.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
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


@dataclass
class _Batch:
    """Answers on their way to the disk."""

    generations: dict[str, Generation] = field(default_factory=dict[str, Generation])
    rows: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    questions: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    texts: dict[int, str] = field(default_factory=dict[int, str])
    size: int = 0

    def add(self, generation: Generation, row: Row) -> None:
        """Add an answer unless its question has one."""
        if generation.key not in self.generations:
            self.generations[generation.key] = generation
            self.rows.append(row.values)
            self.questions.append((row.question, generation.key))
            self.texts |= row.texts
            self.size += row.size

    def fuller_than(self, share: float) -> bool:
        """Whether it holds more than `share` of what may wait in memory."""
        return len(self.rows) > share * _MOST_ROWS or self.size > share * _MOST_CHARACTERS


class Ledger:
    """Answers by request key. A context manager; safe to use from several threads and several processes.

    Raises LedgerError when the file can't be opened or written (a full disk, a folder without permission).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        opened = open_ledger(path)
        self.set_aside = opened.set_aside
        """Where a corrupt file, or one of another version, was moved on opening, if one was."""
        self.notice = opened.notice
        """One sentence for people about that file; empty if there was none."""
        self._writer = opened.connection
        self._reader = connect(path)
        # `_lock` guards the batches and is held for microseconds; the other two are held while SQLite works.
        self._lock, self._write_lock, self._read_lock = Lock(), Lock(), Lock()
        self._pending, self._writing = _Batch(), _Batch()
        self._trouble = ""
        self._wake, self._closing = Event(), Event()
        self._thread: Thread | None = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, keys: Iterable[str]) -> dict[str, Generation]:
        """The known answers among `keys`; raises LedgerError when the file can't be read."""
        found: dict[str, Generation] = {}
        for chunk in _chunks(keys, _LOOKUP):
            with self._lock:
                # In this order: an answer leaves memory only after it can be read from the file.
                for batch in (self._pending, self._writing):
                    found |= {key: batch.generations[key] for key in chunk if key in batch.generations}
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
            self._pending.add(generation, row)
            half, full = self._pending.fuller_than(0.5), self._pending.fuller_than(1.0)
            if self._thread is None:
                self._thread = Thread(target=self._keep_writing, name="ledger", daemon=True)
                self._thread.start()
        if full:
            self._write()
        elif self._trouble:
            raise LedgerError(self._trouble)
        elif half:
            self._wake.set()

    def flush(self) -> None:
        """Write what is pending; raises LedgerError, keeping the answers in memory, when the disk refuses."""
        self._write()

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
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._write()
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
        while not self._closing.is_set():
            self._wake.wait(_FLUSH_SECONDS)
            self._wake.clear()
            # The answers stay in memory when this fails, and the next put, flush or close raises in the run's thread.
            with suppress(LedgerError):
                self._write()

    def _write(self) -> None:
        with self._write_lock:
            for _ in range(2):  # what a failed write left, and what came since
                with self._lock:
                    if not self._writing.rows:
                        self._writing, self._pending = self._pending, self._writing
                if not self._writing.rows:
                    break
                try:
                    self._insert(self._writing)
                except sqlite3.Error as error:
                    self._trouble = f"{self.path}: answers can't be written: {error}; free disk space, run again"
                    raise LedgerError(self._trouble) from error
                with self._lock:
                    self._writing = _Batch()
            self._trouble = ""

    def _insert(self, batch: _Batch) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            # With each batch anew, never remembered: `prune` of another process may have deleted a text since.
            self._writer.executemany(_INSERT_TEXT, batch.texts.items())
            self._writer.executemany(_INSERT, batch.rows)
            self._writer.executemany(_INSERT_REQUEST, batch.questions)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:  # a full disk may have ended it
                self._writer.execute("ROLLBACK")
            raise


def _chunks(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    for key in keys:
        chunk.append(key)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
