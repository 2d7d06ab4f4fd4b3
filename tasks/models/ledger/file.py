"""The ledger's file: its tables and rows, opening it, and moving a corrupt file aside.

The table `answers` has one small row per answer, and `requests` the request of each answer. Thousands of requests share
the same prefix, suffix and answer constraint; `texts` stores each of these texts once, keyed by its digest. The view
`questions` joins the three tables, so pandas can read whole requests:
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
"""Stored in PRAGMA user_version. Version 1 (stored as 0) kept answers without their requests."""

LOCK_SECONDS = 60.0
"""Longest wait for the write lock. Another run's flush holds it for 0.1 s, a backup of the file for longer."""

# Rows are in order of arrival, with an index over the keys: in a table ordered by key, which is a hash, each row would
# rewrite another page. Requests have their own table because they are large and seldom read: looking up and counting
# answers reads 0.7 KB per answer.
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
    """The file must be set aside, for the reason in the text; `tag` becomes part of its new name."""

    def __init__(self, tag: str, why: str) -> None:
        super().__init__(why)
        self.tag = tag


def open_ledger(path: Path) -> tuple[sqlite3.Connection, str]:
    """Open the ledger for writing, creating it if necessary; return the connection and a notice.

    A corrupt file, or one of another version, is renamed, never deleted, and a new ledger is created. The notice says
    so; otherwise it is empty. Raises LedgerError when the file cannot be opened, or is some other database.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # one run at a time: two that find the same corrupt file would set aside each other's new ledger
        with FileLock(path.with_name(path.name + ".lock"), timeout=LOCK_SECONDS):
            try:
                return _connect_prepared(path), ""
            except _Unusable as error:
                aside = _move_aside(path, error.tag)
                notice = (
                    f"the ledger {path} {error}; it was set aside as {aside} and a new one created, so its answers "
                    "will be asked for again"
                )
                return _connect_prepared(path), notice
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"{path}: the ledger cannot be opened: {error}; check permissions and disk space, or change `ledger`"
        ) from error


def open_existing(path: Path, mode: str = "ro") -> sqlite3.Connection:
    """Open an existing ledger in SQLite's mode `ro` or `rw`; raise LedgerError when it is missing or unreadable."""
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger here; give its path with --ledger PATH")
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=LOCK_SECONDS, isolation_level=None
        )
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise LedgerError(
                    f"{path}: ledger version {version}, expected {VERSION}; pass another file with --ledger"
                )
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise LedgerError(
            f"{path}: the ledger cannot be read: {error}; check its permissions, or pass another file with --ledger"
        ) from error
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection in autocommit mode. Any thread may use it, but only one at a time."""
    return sqlite3.connect(path, timeout=LOCK_SECONDS, check_same_thread=False, isolation_level=None)


def _connect_prepared(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    try:
        _check_version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        # One sync per second (4 to 20 ms, in the ledger's thread) is cheap, and answers then survive a power cut too,
        # not only the death of the process.
        connection.execute("PRAGMA synchronous = FULL")
        # 16 MB: index pages that change with every flush are copied into the file once for many flushes
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
        raise _Unusable(f"version-{version or 1}", f"has version {version or 1}, expected {VERSION}")
    if tables:
        raise LedgerError(f"{path}: some other database (tables {sorted(tables)}); set `ledger` to another file")
    # lets `prune` release pages a few at a time; must be set before the first table is created
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("COMMIT")


def _move_aside(path: Path, tag: str) -> Path:
    stem = f"{path.name}.{tag}-{int(time.time())}"
    names = (path.with_name(stem if n == 0 else f"{stem}-{n}") for n in range(1 << 30))
    aside = next(name for name in names if not name.exists())
    # the log first: SQLite would apply it to a new ledger of the same name
    for tail in ("-wal", "-shm", ""):
        side = path.with_name(path.name + tail)
        if side.exists():
            os.rename(side, aside.with_name(aside.name + tail))
    return aside


# --- rows: what is kept of a request and its answer ----------------------------------------------------------------

COLUMNS = (
    *("key", "at", "sample_id", "purpose", "outcome", "engine"),
    *("tokens_in", "tokens_cached", "tokens_out", "seconds"),
    *("prefix_id", "suffix_id", "constraint_id", "generation"),
)
"""The columns of the table `answers`, without the row number `id`."""


@dataclass(frozen=True)
class Row:
    """An answer as it is stored: `values` are in the order of COLUMNS, and `texts` maps ids to the shared texts."""

    generation: Generation
    values: tuple[object, ...]
    request_json: str
    texts: dict[int, str]

    @property
    def size(self) -> int:
        """Return the total number of characters in the request's and the answer's JSON."""
        return len(self.request_json) + len(str(self.values[-1]))


def make_row(request: Request, generation: Generation, at: float) -> Row:
    """Return the row for a request and its answer, which was received at the time `at` (Unix seconds)."""
    constraint = _serialise_constraint(request.constraint)  # pyright: ignore[reportArgumentType]  # frozen, so it hashes
    texts = (request.prefix, request.suffix, constraint)
    ids = [_make_text_id(text) for text in texts]
    request_json = _serialise(request, "prefix", "suffix", "constraint")
    g = generation
    values = (
        *(request.key, at, _replace_surrogates(request.sample_id), request.purpose, g.outcome.value, g.engine),
        *(g.tokens_in, g.tokens_cached, g.tokens_out, g.seconds, *ids, _serialise_generation(g)),
    )
    return Row(g, values, request_json, dict(zip(ids, texts, strict=True)))


# a small cache, because a pack may give each item its own label list and so its own prefix
@lru_cache(maxsize=256)
def _make_text_id(text: str) -> int:
    # 64 bits: two of a million texts have the same id in one of 30 million ledgers
    return int.from_bytes(sha256(text.encode()).digest()[:8], signed=True)


@lru_cache(maxsize=256)
def _serialise_constraint(constraint: Constraint) -> str:
    return constraint.model_dump_json()


def _serialise_generation(generation: Generation) -> str:
    logprobs = generation.label_logprobs
    if logprobs is not None and not math.isfinite(sum(logprobs.values())):
        # JSON has no infinity: pydantic writes null, which it cannot read back, but it does read a string
        logprobs = {label: value if math.isfinite(value) else str(value) for label, value in logprobs.items()}
        return _replace_surrogates(
            json.dumps(generation.model_dump() | {"label_logprobs": logprobs}, ensure_ascii=False)
        )
    return _serialise(generation)


def _serialise(record: Request | Generation, *without: str) -> str:
    """Return the record as JSON, with `?` for half a surrogate pair, which UTF-8 cannot encode."""
    try:
        return record.model_dump_json(exclude=set(without))
    except PydanticSerializationError:
        return _replace_surrogates(json.dumps(record.model_dump(exclude=set(without)), ensure_ascii=False))


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
