"""Count or delete answers in a ledger: `labelstill ledger stats` and `labelstill ledger prune`."""

import sqlite3
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from tasks.errors import LedgerError
from tasks.models.ledger.file import LATER_TABLES, open_existing
from tasks.records import Outcome

# rows deleted and pages released per transaction: a run that writes meanwhile waits for a fraction of a second
_ROWS = 20_000
_PAGES = 5_000


@dataclass(frozen=True)
class Group:
    """Totals of the answers with the same purpose, engine and outcome."""

    purpose: str
    engine: str
    outcome: str
    rows: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    seconds: float


@dataclass(frozen=True)
class Stats:
    """Totals of a ledger, or of some of its answers."""

    groups: tuple[Group, ...]
    """Groups of answers, the largest first."""
    oldest: float | None
    """When the oldest answer was received (Unix seconds); None when there are no answers."""
    newest: float | None
    """The same for the newest answer."""
    size: int
    """Size of the whole ledger on disk, in bytes, including its write-ahead log."""

    @property
    def rows(self) -> int:
        """Return the number of answers."""
        return sum(group.rows for group in self.groups)


@dataclass(frozen=True)
class Choice:
    """Chooses the answers that meet every condition that is not None."""

    before: float | None = None
    """The answer was received before this time (Unix seconds)."""
    model: str | None = None
    """The engine's fingerprint contains this text, e.g. the model's name."""
    purpose: str | None = None
    outcome: Outcome | None = None

    def sql(self) -> tuple[str, list[object]]:
        """Return an SQL expression for WHERE, and the values of its placeholders."""
        conditions = {
            "at < ?": self.before,
            "instr(engine, ?) > 0": self.model,
            "purpose = ?": self.purpose,
            "outcome = ?": None if self.outcome is None else self.outcome.value,
        }
        wanted = {condition: value for condition, value in conditions.items() if value is not None}
        return " AND ".join(wanted) or "1", list(wanted.values())


def read_stats(path: Path, choice: Choice | None = None) -> Stats:
    """Return the totals of all answers, or of the chosen ones; raise LedgerError when there is no ledger at `path`."""
    condition, values = (choice or Choice()).sql()
    with _open(path, "ro") as connection:
        rows = connection.execute(
            "SELECT purpose, engine, outcome, COUNT(*), SUM(tokens_in), SUM(tokens_cached), SUM(tokens_out), "
            f"SUM(seconds), MIN(at), MAX(at) FROM answers WHERE {condition} "
            "GROUP BY purpose, engine, outcome ORDER BY COUNT(*) DESC, purpose, engine, outcome",
            values,
        ).fetchall()
    return Stats(
        groups=tuple(Group(*row[:-2]) for row in rows),
        oldest=min((row[-2] for row in rows), default=None),
        newest=max((row[-1] for row in rows), default=None),
        size=_measure_size(path),
    )


def find_kept(path: Path, keys: Sequence[str]) -> set[str]:
    """Return those of the request keys of which the ledger has an answer; none if there is no ledger at `path`."""
    if not path.exists():
        return set()
    with _open(path, "ro") as connection:
        rows = connection.execute(
            "SELECT key FROM answers WHERE key IN (SELECT value FROM json_each(?))", (orjson.dumps(keys).decode(),)
        )
        return {key for (key,) in rows}


def find_prunable(path: Path, choice: Choice) -> Stats:
    """Return the totals of the answers that `prune` would delete; raise what `prune` raises."""
    _require_condition(choice)
    return read_stats(path, choice)


def prune(path: Path, choice: Choice) -> tuple[int, int]:
    """Delete the chosen answers and the texts that no other answer uses, and shrink the file.

    Returns how many answers were deleted and by how many bytes the file shrank. Other runs may use the ledger
    meanwhile. Raises LedgerError when there is no ledger, or when `choice` sets no condition.
    """
    _require_condition(choice)
    condition, values = choice.sql()
    size = _measure_size(path)
    deleted = 0
    with _open(path, "rw") as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = OFF")  # some builds of SQLite overwrite deleted data with zeros
        connection.execute(
            "PRAGMA cache_size = -131072"
        )  # in KB: the pages of a transaction stay in memory until it is committed
        for statement in LATER_TABLES:
            connection.execute(statement)
        connection.execute(
            f"INSERT INTO prunes SELECT DISTINCT engine, ? FROM answers WHERE {condition} "
            "ON CONFLICT (engine) DO UPDATE SET at = excluded.at",
            [time.time(), *values],
        )
        (last,) = connection.execute("SELECT COALESCE(MAX(id), 0) FROM answers").fetchone()
        for start in range(0, last, _ROWS):
            span = [start, min(start + _ROWS, last)]
            selected = f"WHERE id > ? AND id <= ? AND {condition}"
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"DELETE FROM requests WHERE id IN (SELECT id FROM answers {selected})", span + values)
            deleted += connection.execute(f"DELETE FROM answers {selected}", span + values).rowcount
            connection.execute("COMMIT")
        _delete_unused_texts(connection)
        _release_space(connection)
    return deleted, size - _measure_size(path)


def find_last_prune(path: Path, models: Iterable[str]) -> float:
    """Return when answers of one of the models (identities) were last deleted, in Unix seconds; 0 if never.

    A stage that used such an answer is unfinished. A missing or unreadable ledger says nothing and returns 0.
    """
    names = [model.split("+")[0].split("@")[0] for model in models]
    try:
        with _open(path, "ro") as connection:
            prunes = connection.execute("SELECT engine, at FROM prunes").fetchall()
    except LedgerError:  # also a ledger of an earlier release, which has no such table
        return 0.0
    return max((at for engine, at in prunes if any(name in engine for name in names)), default=0.0)


def _require_condition(choice: Choice) -> None:
    if choice == Choice():
        raise LedgerError("say which answers to delete: use --older-than, --model, --purpose or --outcome")


def _delete_unused_texts(connection: sqlite3.Connection) -> None:
    # one transaction, as in a run's flush, which writes answers together with their texts
    connection.execute(
        "DELETE FROM texts WHERE id NOT IN "
        "(SELECT prefix_id FROM answers UNION SELECT suffix_id FROM answers UNION SELECT constraint_id FROM answers)"
    )


def _release_space(connection: sqlite3.Connection) -> None:
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    for _ in range(0, free, _PAGES):
        # the pragma returns a row per page, and `execute` would stop at the first
        connection.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _measure_size(path: Path) -> int:
    files = (path.with_name(path.name + tail) for tail in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


@contextmanager
def _open(path: Path, mode: str) -> Generator[sqlite3.Connection]:
    with closing(open_existing(path, mode)) as connection:
        try:
            yield connection
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: {error}") from error
