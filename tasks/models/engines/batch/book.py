"""Record what was sent to a batch API, so that a run killed at any point neither loses nor pays for a question twice.

The SQLite file `batches.sqlite` lies in a folder beside the ledger. Each step is recorded before and after it is taken:
a file is `uploading` before it is sent and `creating` once the server has it; its batch is `submitted` once the server
has accepted it, and `ended` once all answers are in this file. An answer stays here until it is in the ledger.
"""

import sqlite3
import time
import zlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock

from tasks.errors import LedgerError

_TABLES = """
CREATE TABLE IF NOT EXISTS batches (
    name TEXT PRIMARY KEY,
    server TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    file_id TEXT NOT NULL DEFAULT '',
    batch_id TEXT NOT NULL DEFAULT '',
    tokens INTEGER NOT NULL,
    changed REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS questions (
    custom_id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    batch TEXT,
    shortened TEXT NOT NULL DEFAULT '',
    tries INTEGER NOT NULL DEFAULT 0,
    answer BLOB
);
CREATE INDEX IF NOT EXISTS questions_by_key ON questions (key);
CREATE INDEX IF NOT EXISTS questions_by_batch ON questions (batch);
CREATE TABLE IF NOT EXISTS queues (server TEXT, model TEXT, tokens INTEGER NOT NULL, PRIMARY KEY (server, model));
"""


class State(StrEnum):
    """How far a batch has come."""

    UPLOADING = "uploading"
    CREATING = "creating"
    SUBMITTED = "submitted"
    ENDED = "ended"


@dataclass(frozen=True)
class Batch:
    """A file of questions and its batch. `name` is the file's name on the server and in the batch's metadata."""

    name: str
    state: State
    file_id: str
    batch_id: str
    tokens: int
    """About how many prompt tokens the questions have."""
    questions: int


@dataclass(frozen=True)
class Question:
    """One line of a batch: all answers to a request, or one of several."""

    custom_id: str
    batch: str | None
    """None if it is in no batch now, so that it has to be sent (again)."""
    shortened: str
    """What was removed to make the prompt fit; empty if nothing was."""
    tries: int
    """How often a server lost it or failed at it."""
    answer: dict[str, Any] | None
    """The chat completion under `body`, or why there is none under `refused`."""


@dataclass(frozen=True)
class Line:
    """A line to be sent, with about how many prompt tokens it has and what its answer will cost."""

    custom_id: str
    key: str
    content: bytes
    shortened: str
    tokens: int
    cost: float


class Book:
    """The record of one server's batches of one model. Only one process at a time uses it (`hold`)."""

    def __init__(self, ledger: Path, server: str, model: str) -> None:
        self.folder = ledger.with_name(f"{ledger.name}.batches")
        self.path = self.folder / "batches.sqlite"
        self._owner = (server, model)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"{self.path}: the record of batches cannot be opened: {error}; check permissions and disk space"
            ) from error

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._connection.close()

    @contextmanager
    def hold(self) -> Generator[None]:
        """Context manager: wait until no other run sends or takes answers; a killed process lets go at once."""
        with FileLock(self.folder / "batches.lock", thread_local=False):
            yield

    def list_batches(self, *states: State) -> list[Batch]:
        """Return this server's and model's batches in these states, the oldest first."""
        rows = self._connection.execute(
            "SELECT name, state, file_id, batch_id, tokens, (SELECT count(*) FROM questions WHERE batch = name) "
            "FROM batches WHERE server = ? AND model = ? AND state IN (SELECT value FROM json_each(?)) ORDER BY rowid",
            (*self._owner, orjson.dumps([str(s) for s in states]).decode()),
        )
        return [Batch(name, State(state), *others) for name, state, *others in rows]

    def list_file_names(self) -> set[str]:
        """Return the names of all files, also of those of other servers and models in the same folder."""
        return {name for (name,) in self._connection.execute("SELECT name FROM batches")}

    def find_questions(self, keys: Sequence[str]) -> dict[str, list[Question]]:
        """Return what was sent for each request key that was ever sent."""
        rows = self._connection.execute(
            "SELECT key, custom_id, batch, shortened, tries, answer FROM questions "
            "WHERE key IN (SELECT value FROM json_each(?)) ORDER BY rowid",
            (orjson.dumps(list(keys)).decode(),),
        )
        found: dict[str, list[Question]] = {}
        for key, custom_id, batch, shortened, tries, answer in rows:
            known = None if answer is None else orjson.loads(zlib.decompress(answer))
            found.setdefault(key, []).append(Question(custom_id, batch, shortened, tries, known))
        return found

    def note_file(self, name: str, lines: Iterable[Line], tokens: int) -> None:
        """Record a file that is about to be uploaded, and that its questions are in it."""
        with self._write() as connection:
            connection.execute(
                "INSERT INTO batches (name, server, model, state, tokens, changed) VALUES (?, ?, ?, ?, ?, ?)",
                (name, *self._owner, State.UPLOADING, tokens, time.time()),
            )
            connection.executemany(
                "INSERT INTO questions (custom_id, key, batch, shortened) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (custom_id) DO UPDATE SET batch = excluded.batch, shortened = excluded.shortened",
                ((line.custom_id, line.key, name, line.shortened) for line in lines),
            )

    def note_step(self, name: str, state: State, *, file_id: str = "", batch_id: str = "") -> None:
        """Record that a step is done: the file is on the server, or the batch is accepted."""
        with self._write() as connection:
            connection.execute(
                "UPDATE batches SET state = ?, file_id = iif(? = '', file_id, ?), batch_id = ?, changed = ? "
                "WHERE name = ?",
                (state, file_id, file_id, batch_id, time.time(), name),
            )

    def note_end(self, name: str, answers: Mapping[str, Mapping[str, Any]], *, failed: Iterable[str]) -> int:
        """Record a batch's answers by custom id, and that it has ended; free its other questions to be sent again.

        `failed` names the questions of which a failure is counted. Returns the number of answers that were not known.
        """
        new = 0
        with self._write() as connection:
            for custom_id, answer in answers.items():
                data = zlib.compress(orjson.dumps(answer), 1)
                done = connection.execute(
                    "UPDATE questions SET answer = ? WHERE custom_id = ? AND batch = ? AND answer IS NULL",
                    (data, custom_id, name),
                )
                new += done.rowcount
            connection.executemany(
                "UPDATE questions SET tries = tries + 1 WHERE custom_id = ? AND answer IS NULL",
                ((custom_id,) for custom_id in failed),
            )
            connection.execute("UPDATE questions SET batch = NULL WHERE batch = ? AND answer IS NULL", (name,))
            connection.execute(
                "UPDATE batches SET state = ?, changed = ? WHERE name = ?", (State.ENDED, time.time(), name)
            )
        return new

    def list_unanswered(self, name: str) -> set[str]:
        """Return the custom ids of a batch's questions that have no answer yet."""
        rows = self._connection.execute("SELECT custom_id FROM questions WHERE batch = ? AND answer IS NULL", (name,))
        return {custom_id for (custom_id,) in rows}

    def forget_batch(self, name: str) -> None:
        """Forget a batch that the server refused, so that its questions are sent again by a later run."""
        with self._write() as connection:
            connection.execute("UPDATE questions SET batch = NULL WHERE batch = ? AND answer IS NULL", (name,))
            connection.execute("DELETE FROM batches WHERE name = ?", (name,))

    def forget_questions(self, keys: Sequence[str]) -> None:
        """Forget requests whose answers are in the ledger, or whose failure has been reported."""
        with self._write() as connection:
            connection.execute(
                "DELETE FROM questions WHERE key IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(keys)).decode(),),
            )

    def list_answered_keys(self) -> list[str]:
        """Return the keys of all requests that have at least one answer here."""
        return [
            key for (key,) in self._connection.execute("SELECT DISTINCT key FROM questions WHERE answer IS NOT NULL")
        ]

    def read_queue_limit(self) -> int | None:
        """Return how many prompt tokens the server lets wait at a time, as far as it has said so."""
        row = self._connection.execute(
            "SELECT tokens FROM queues WHERE server = ? AND model = ?", self._owner
        ).fetchone()
        return None if row is None else int(row[0])

    def note_queue_limit(self, tokens: int) -> None:
        """Record how many prompt tokens the server lets wait at a time."""
        with self._write() as connection:
            connection.execute("INSERT OR REPLACE INTO queues VALUES (?, ?, ?)", (*self._owner, tokens))

    @contextmanager
    def _write(self) -> Generator[sqlite3.Connection]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise LedgerError(f"{self.path}: cannot be written: {error}; free disk space and run again") from error
            raise
