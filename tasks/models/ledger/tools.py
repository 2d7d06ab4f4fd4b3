"""What a ledger holds, and throwing some of it away: `labelstill ledger stats` and `prune`."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import LedgerError
from tasks.models.ledger.file import open_existing
from tasks.records import Outcome

# Rows deleted, and pages given back, in one go: a run that writes at the same time waits for a fraction of a second.
_ROWS = 20_000
_PAGES = 5_000


@dataclass(frozen=True)
class Group:
    """The answers to one purpose by one engine with one outcome, added up."""

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
    """A ledger, or a choice of its answers, in figures."""

    groups: tuple[Group, ...]
    """Biggest first."""
    oldest: float | None
    """Unix seconds; None when there are no answers."""
    newest: float | None
    size: int
    """Bytes on disk of the whole ledger, its log included."""

    @property
    def rows(self) -> int:
        """All answers."""
        return sum(group.rows for group in self.groups)


@dataclass(frozen=True)
class Choice:
    """Which answers: those that meet every condition that is set."""

    before: float | None = None
    """Kept before this time (Unix seconds)."""
    model: str | None = None
    """A part of the engine's fingerprint, e.g. the model's name."""
    purpose: str | None = None
    outcome: Outcome | None = None

    def sql(self) -> tuple[str, list[object]]:
        """A WHERE expression and its values, these empty when no condition is set."""
        conditions = {
            "at < ?": self.before,
            "instr(engine, ?) > 0": self.model,
            "purpose = ?": self.purpose,
            "outcome = ?": None if self.outcome is None else self.outcome.value,
        }
        wanted = {condition: value for condition, value in conditions.items() if value is not None}
        return " AND ".join(wanted) or "1", list(wanted.values())


def stats(path: Path, choice: Choice | None = None) -> Stats:
    """The figures of the ledger at `path`, or of the chosen answers in it; raises LedgerError when there is none."""
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
        size=_size(path),
    )


def prunable(path: Path, choice: Choice) -> Stats:
    """What `prune` would delete; raises LedgerError as it does."""
    _check(choice)
    return stats(path, choice)


def prune(path: Path, choice: Choice) -> tuple[int, int]:
    """Delete the chosen answers and the texts that no other answer needs, and give the space back to the disk.

    Return how many answers are gone, and the bytes given back. Other runs may go on meanwhile. Raises LedgerError when
    there is no ledger, or when `choice` sets no condition.
    """
    _check(choice)
    condition, values = choice.sql()
    size, deleted = _size(path), 0
    with _open(path, "rw") as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = OFF")  # some builds write zeros over what is deleted
        connection.execute("PRAGMA cache_size = -131072")  # KB: each step's pages stay in memory until it is written
        (last,) = connection.execute("SELECT COALESCE(MAX(id), 0) FROM answers").fetchone()
        for start in range(0, last, _ROWS):
            span = [start, min(start + _ROWS, last)]
            doomed = f"WHERE id > ? AND id <= ? AND {condition}"
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"DELETE FROM requests WHERE id IN (SELECT id FROM answers {doomed})", span + values)
            deleted += connection.execute(f"DELETE FROM answers {doomed}", span + values).rowcount
            connection.execute("COMMIT")
        _forget_texts(connection)
        _give_back(connection)
    return deleted, size - _size(path)


def _check(choice: Choice) -> None:
    if choice == Choice():
        raise LedgerError("choose what to delete: --older-than, --model, --purpose or --outcome")


def _forget_texts(connection: sqlite3.Connection) -> None:
    # One statement, so one transaction: a run's flush writes its answers and their texts in one, too.
    connection.execute(
        "DELETE FROM texts WHERE id NOT IN "
        "(SELECT prefix_id FROM answers UNION SELECT suffix_id FROM answers UNION SELECT constraint_id FROM answers)"
    )


def _give_back(connection: sqlite3.Connection) -> None:
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    for _ in range(0, free, _PAGES):
        # This pragma makes a row without columns for each page, and execute stops at the first.
        connection.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _size(path: Path) -> int:
    files = (path.with_name(path.name + tail) for tail in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


@contextmanager
def _open(path: Path, mode: str) -> Generator[sqlite3.Connection]:
    with closing(open_existing(path, mode)) as connection:
        try:
            yield connection
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: {error}") from error
