# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (pyarrow publishes no types)
"""A ledger as a table for other programs: `labelstill ledger export`.

A row holds the columns of the view `questions`. `request` and `generation` are whole records, texts restored: objects
in JSON lines, JSON text in Parquet and CSV.
"""

import csv
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import LedgerError
from tasks.models.ledger.file import open_existing

# Rows held in memory at once, some of them prompts of 200 KB.
_ROWS = 500
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key",)]
    + [("at", pa.timestamp("us", tz="UTC"))]
    + [(name, pa.string()) for name in ("sample_id", "purpose", "outcome", "engine")]
    + [(name, pa.int64()) for name in ("tokens_in", "tokens_cached", "tokens_out")]
    + [("seconds", pa.float64()), ("request", pa.string()), ("generation", pa.string())]
)
COLUMNS: tuple[str, ...] = tuple(_SCHEMA.names)
_JSON = [COLUMNS.index(name) for name in ("request", "generation")]

Rows = Sequence[tuple[object, ...]]
Write = Callable[[Rows], None]
"""Writes some rows, in the order of COLUMNS."""


def export(path: Path, target: Path) -> int:
    """Write the ledger at `path` to `target`, its form by its ending: .parquet, .jsonl or .csv. Returns the rows.

    `target` appears when it is whole, and memory stays flat however many rows there are. Raises LedgerError when
    there is no ledger, the ending is another, or the file can't be written.
    """
    sink = _SINKS.get(target.suffix)
    if sink is None:
        raise LedgerError(f"{target}: name a file that ends in {', '.join(_SINKS)}")
    count = 0
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with closing(open_existing(path)) as connection:
            target.parent.mkdir(parents=True, exist_ok=True)
            with sink(temporary) as write:
                for rows in _chunks(connection):
                    write(rows)
                    count += len(rows)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"{path} can't be exported to {target}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _chunks(connection: sqlite3.Connection) -> Iterator[Rows]:
    # Each chunk is a read of its own: a read that lasts keeps the log of a run that writes meanwhile from ending.
    last = 0
    query = f"SELECT {','.join(COLUMNS)}, id FROM questions WHERE id > ? ORDER BY id LIMIT {_ROWS}"
    while rows := connection.execute(query, (last,)).fetchall():
        last = rows[-1][-1]
        yield [row[:-1] for row in rows]


@contextmanager
def _parquet(path: Path) -> Generator[Write]:
    at = COLUMNS.index("at")

    def write(rows: Rows) -> None:
        columns = [list(column) for column in zip(*rows, strict=True)]
        columns[at] = [round(value * 1e6) for value in columns[at]]  # pyright: ignore
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))

    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        yield write


@contextmanager
def _jsonl(path: Path) -> Generator[Write]:
    def write(rows: Rows) -> None:
        for row in rows:
            values = dict(zip(COLUMNS, row, strict=True))
            for index in _JSON:
                values[COLUMNS[index]] = orjson.Fragment(str(row[index]))
            file.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))

    with path.open("wb") as file:
        yield write


@contextmanager
def _csv(path: Path) -> Generator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        yield writer.writerows


_SINKS = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}
