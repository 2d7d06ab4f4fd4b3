"""The ledger's file: its tables, opening it, and moving a corrupt file aside.

The table `answers` has one small row per answer, with a checksum, and `requests` the request of each answer. Thousands
of requests share the same prefix, suffix and answer constraint; `texts` stores each of these texts once, keyed by its
digest. The view `questions` joins the three tables, so pandas can read whole requests:
``pandas.read_sql("select * from questions limit 100", sqlite3.connect(path))``.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.errors import LedgerError
from tasks.models.ledger.rows import AGREES, COLUMNS, ROW_TEXT, compute_checksum, read_answer

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
        generation TEXT NOT NULL,
        checksum TEXT NOT NULL DEFAULT ''
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


# What ledgers of earlier releases lack. `prunes` says when answers of an engine were last deleted; `models` says which
# commit of a hub model without `revision` gave this ledger's answers.
LATER_TABLES = (
    "CREATE TABLE IF NOT EXISTS prunes (engine TEXT PRIMARY KEY, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, revision TEXT NOT NULL)",
)


# a few at a time, because a ledger may be larger than the free disk space, and the work may be interrupted
_ADD_CHECKSUMS = (
    f"UPDATE answers SET checksum = CASE WHEN {AGREES} THEN checksum_of({ROW_TEXT}) ELSE 'damaged' END "
    "WHERE id IN (SELECT id FROM answers WHERE checksum = '' LIMIT 20000)"
)

_CORRUPT = "corrupt"


class _Unusable(Exception):
    """The file must be set aside, for the reason in the text; `tag` becomes part of its new name."""

    def __init__(self, tag: str, why: str) -> None:
        super().__init__(why)
        self.tag = tag


def open_ledger(path: Path, *, thorough: bool = False) -> tuple[sqlite3.Connection, str]:
    """Open the ledger for writing, creating it if necessary; return the connection and a notice.

    A corrupt file, or one of another version, is renamed, never deleted, and a new ledger is created, with those of a
    corrupt file's answers that can be read. The notice says so; otherwise it is empty. `thorough` finds corruption
    anywhere in the file, but reads all of it. Raises LedgerError when the file cannot be opened, or is some other
    database.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # one run at a time: two that find the same corrupt file would set aside each other's new ledger
        with FileLock(path.with_name(path.name + ".lock"), timeout=LOCK_SECONDS):
            try:
                return _connect_prepared(path, thorough), ""
            except _Unusable as error:
                aside = _move_aside(path, error.tag)
                connection = _connect_prepared(path)
                copied = _copy_answers(aside, connection) if error.tag == _CORRUPT else 0
                notice = (
                    f"the ledger {path} {error}; it was set aside as {aside} and a new one created with {copied} of "
                    "its answers; the others will be asked for again"
                )
                return connection, notice
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


def is_corruption(error: sqlite3.Error) -> bool:
    """Return whether the error means that the file's content is damaged, not that the file cannot be used now."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _connect_prepared(path: Path, thorough: bool = False) -> sqlite3.Connection:
    connection = connect(path)
    try:
        if thorough and (fault := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise _Unusable(_CORRUPT, f"is corrupt ({fault.splitlines()[-1]})")
        _check_version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        _add_later_parts(connection)
        # One sync per second (4 to 20 ms, in the ledger's thread) is cheap, and answers then survive a power cut too,
        # not only the death of the process.
        connection.execute("PRAGMA synchronous = FULL")
        # 16 MB: index pages that change with every flush are copied into the file once for many flushes
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        return connection
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error) and is_corruption(error):
            raise _Unusable(_CORRUPT, f"is corrupt ({error})") from error
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


def _add_later_parts(connection: sqlite3.Connection) -> None:
    """Add what a ledger of an earlier release lacks: tables, and a checksum for each answer.

    An answer that does not agree with its columns gets a wrong checksum. Earlier releases may use the file meanwhile:
    what they add gets its checksum here the next time.
    """
    for statement in LATER_TABLES:
        connection.execute(statement)
    if "checksum" not in {name for _, name, *_ in connection.execute("PRAGMA table_info(answers)")}:
        connection.execute("ALTER TABLE answers ADD COLUMN checksum TEXT NOT NULL DEFAULT ''")
    connection.execute("CREATE INDEX IF NOT EXISTS unchecked ON answers (id) WHERE checksum = ''")
    connection.create_function("checksum_of", 1, compute_checksum, deterministic=True)
    while connection.execute(_ADD_CHECKSUMS).rowcount > 0:
        pass


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


# --- copying what can be read of a corrupt file ---------------------------------------------------------------------

_NEXT_ROW = f"SELECT id, hex(checksum), {ROW_TEXT}, {','.join(COLUMNS)} FROM answers WHERE id > ? ORDER BY id LIMIT 1"
_COPY = (
    f"INSERT INTO answers (id, {','.join(COLUMNS)}) VALUES (?, {','.join('?' * len(COLUMNS))}) ON CONFLICT DO NOTHING"
)
_MOST_FAILURES = 10_000
"""After so many rows in a row that cannot be read, the rest of the file is given up."""


def _copy_answers(aside: Path, new: sqlite3.Connection) -> int:
    """Copy the undamaged answers of a corrupt ledger, with their requests, and return how many there are."""
    copied = 0
    with closing(connect(aside)) as old:
        new.execute("BEGIN IMMEDIATE")
        for number, checksum, text, *values in _read_readable_rows(old):
            if read_answer(checksum, text) is not None:
                new.execute(_COPY, (number, *values))
                _copy_text(old, new, "requests", number)
                for name in ("prefix_id", "suffix_id", "constraint_id"):
                    _copy_text(old, new, "texts", values[COLUMNS.index(name)])
                copied += 1
        new.execute("COMMIT")
    return copied


def _read_readable_rows(old: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    number = 0
    failures = 0
    while failures < _MOST_FAILURES:
        try:
            row = old.execute(_NEXT_ROW, (number,)).fetchone()
        except sqlite3.Error:
            number += 1
            failures += 1
            continue
        if row is None:
            return
        number = row[0]
        failures = 0
        yield row


def _copy_text(old: sqlite3.Connection, new: sqlite3.Connection, table: str, number: int) -> None:
    with suppress(sqlite3.Error):  # the answer is worth keeping without the text of its question
        row = old.execute(f"SELECT * FROM {table} WHERE id = ?", (number,)).fetchone()
        if row is not None:
            new.execute(f"INSERT INTO {table} VALUES (?, ?) ON CONFLICT (id) DO NOTHING", row)
