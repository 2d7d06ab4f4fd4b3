"""The ledger's file: its tables, what a row keeps of a question and its answer, opening it, setting a bad one aside.

`answers` has a small row an answer, `requests` the question to each. The three texts that are equal for thousands of
questions (prefix, suffix, answer constraint) stand once in `texts`, under their digest. The view `questions` puts all
together, so that plain pandas reads whole requests:
``pandas.read_sql("select * from questions limit 100", sqlite3.connect(path))``.
"""

import json
import math
import os
import sqlite3
import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from filelock import FileLock
from pydantic_core import PydanticSerializationError

from tasks.errors import LedgerError
from tasks.records import Constraint, Generation, Request

VERSION = 2
"""In PRAGMA user_version. Version 1 (number 0) kept answers without their questions."""

LOCK_SECONDS = 60.0
"""Another run's flush holds the write lock for a tenth of a second, a copying backup for longer."""

# Rows in order of arrival and keys in an index of their own: a table ordered by key, which is a hash, would rewrite a
# page for each. Questions apart, as they are the bulk and are seldom read: get and stats stay with 0.7 KB an answer.
_TABLES = (
    """
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        at REAL NOT NULL,
        sample_id TEXT NOT NULL,
        purpose TEXT NOT NULL,
        outcome TEXT NOT NULL,
        engine TEXT NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_cached INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        seconds REAL NOT NULL,
        prefix_id INTEGER NOT NULL,
        suffix_id INTEGER NOT NULL,
        constraint_id INTEGER NOT NULL,
        generation TEXT NOT NULL
    )
    """,
    "CREATE TABLE requests (id INTEGER PRIMARY KEY, request TEXT NOT NULL)",
    "CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    """
    CREATE VIEW questions AS
    SELECT a.id, key, at, sample_id, purpose, outcome, engine, tokens_in, tokens_cached, tokens_out, seconds,
        json_set(request, '$.prefix', p.text, '$.suffix', s.text, '$.constraint', json(c.text)) AS request,
        generation
    FROM answers a
    JOIN requests r ON r.id = a.id
    LEFT JOIN texts p ON p.id = prefix_id
    LEFT JOIN texts s ON s.id = suffix_id
    LEFT JOIN texts c ON c.id = constraint_id
    """,
    f"PRAGMA user_version = {VERSION}",
)


class _Unusable(Exception):
    """A file that must be set aside: `tag` goes into its new name, the message says why."""

    def __init__(self, tag: str, why: str) -> None:
        super().__init__(why)
        self.tag = tag


def open_ledger(path: Path) -> tuple[sqlite3.Connection, str]:
    """Open the ledger for writing, making it where there is none.

    A corrupt file, or one of another version, is set aside, never deleted; a sentence for people about that is
    returned, too, empty if there was none. Raises LedgerError when it can't be opened, or is a database of something
    else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One run at a time: two that found the same corrupt file would set each other's new ledger aside.
        with FileLock(path.with_name(path.name + ".lock"), timeout=LOCK_SECONDS):
            try:
                return _prepared(path), ""
            except _Unusable as error:
                aside = _set_aside(path, error.tag)
                notice = (
                    f"the ledger {path} {error}; it was set aside as {aside} and a new one begun: its answers are "
                    "asked again"
                )
                return _prepared(path), notice
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"{path}: the ledger can't be opened: {error}; check permissions and disk space, or set another `ledger`"
        ) from error


def open_existing(path: Path, mode: str = "ro") -> sqlite3.Connection:
    """Open a ledger that must be there already; `mode` is SQLite's: ro or rw. Raises LedgerError."""
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger; name one with --ledger PATH")
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=LOCK_SECONDS, isolation_level=None
        )
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise LedgerError(f"{path}: no ledger of version {VERSION} (its version is {version})")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise LedgerError(
            f"{path}: the ledger can't be read: {error}; check its permissions, or name another with --ledger"
        ) from error
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode that any thread may use, one at a time."""
    return sqlite3.connect(path, timeout=LOCK_SECONDS, check_same_thread=False, isolation_level=None)


def _prepared(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    try:
        _check_version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        # With one commit a second a sync for each (4-20 ms, not on the caller's thread) is cheap, and an answer then
        # survives a power cut too, not only the death of the process.
        connection.execute("PRAGMA synchronous = FULL")
        # 16 MB: index pages that many flushes touch are copied into the file once for several of them.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        return connection
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            raise _Unusable("corrupt", f"is corrupt ({error})") from error
        raise


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "answers" in tables:
        raise _Unusable(f"version-{version or 1}", f"is of version {version or 1}, not {VERSION}")
    if tables:
        raise LedgerError(f"{path}: a database of something else (tables {sorted(tables)}); choose another file")
    # Lets `prune` give pages back to the disk a few at a time; counts only before the first table is made.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("COMMIT")


def _set_aside(path: Path, tag: str) -> Path:
    stem = f"{path.name}.{tag}-{int(time.time())}"
    names = (path.with_name(stem if n == 0 else f"{stem}-{n}") for n in range(1 << 30))
    aside = next(name for name in names if not name.exists())
    # The log first: left beside a new ledger, SQLite would play it into that one.
    for tail in ("-wal", "-shm", ""):
        side = path.with_name(path.name + tail)
        if side.exists():
            os.rename(side, aside.with_name(aside.name + tail))
    return aside


# --- what is kept of a question and its answer ----------------------------------------------------------------

COLUMNS = (
    *("key", "at", "sample_id", "purpose", "outcome", "engine"),
    *("tokens_in", "tokens_cached", "tokens_out", "seconds"),
    *("prefix_id", "suffix_id", "constraint_id", "generation"),
)
"""Of the table `answers`, but for its row number `id`."""


@dataclass(frozen=True)
class Row:
    """An answer as the file keeps it: `values` in the order of COLUMNS, its question, and this one's `texts` by id."""

    generation: Generation
    values: tuple[object, ...]
    question: str
    texts: dict[int, str]

    @property
    def size(self) -> int:
        """Characters of the two JSON texts."""
        return len(self.question) + len(str(self.values[-1]))


def make_row(request: Request, generation: Generation, at: float) -> Row:
    """Return what the file keeps of a question and its answer, taken at `at` (Unix seconds)."""
    constraint = _constraint_text(request.constraint)  # pyright: ignore[reportArgumentType]  # frozen, so it hashes
    texts = (request.prefix, request.suffix, constraint)
    ids = [_text_id(text) for text in texts]
    question = _json_text(request, "prefix", "suffix", "constraint")
    g = generation
    values = (
        *(request.key, at, _encodable(request.sample_id), request.purpose, g.outcome.value, g.engine),
        *(g.tokens_in, g.tokens_cached, g.tokens_out, g.seconds, *ids, _generation_text(g)),
    )
    return Row(g, values, question, dict(zip(ids, texts, strict=True)))


# Few, because a pack may write a label list, and so a prefix, of its own for each item.
@lru_cache(maxsize=256)
def _text_id(text: str) -> int:
    # 64 bits: among a million texts two are alike by accident once in 30 million ledgers
    return int.from_bytes(sha256(text.encode()).digest()[:8], signed=True)


@lru_cache(maxsize=256)
def _constraint_text(constraint: Constraint) -> str:
    return constraint.model_dump_json()


def _generation_text(generation: Generation) -> str:
    logprobs = generation.label_logprobs
    if logprobs is not None and not math.isfinite(sum(logprobs.values())):
        # JSON has no infinity, and the null that pydantic writes for one it can't read back; a string it can
        logprobs = {label: value if math.isfinite(value) else str(value) for label, value in logprobs.items()}
        return _encodable(json.dumps(generation.model_dump() | {"label_logprobs": logprobs}, ensure_ascii=False))
    return _json_text(generation)


def _json_text(record: Request | Generation, *without: str) -> str:
    """JSON with `?` for half a surrogate pair, which UTF-8 can't hold."""
    try:
        return record.model_dump_json(exclude=set(without))
    except PydanticSerializationError:
        return _encodable(json.dumps(record.model_dump(exclude=set(without)), ensure_ascii=False))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
