# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# (pyarrow publishes no types)
"""A stage's folder: kept.parquet, dropped.parquet and record.json (DESIGN.md, "The types").

Files are written under a temporary name, synced and moved into place, record.json last: a folder with a record is
whole. Columns are the record's fields; a nested field is a column of JSON text, so any Parquet reader shows it.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import BooksError, StorageError
from tasks.models.costs import Costs
from tasks.records import Dropped, Record, digest_of
from tasks.storage.files import writing
from tasks.storage.rows import column_type, nested_fields

R = TypeVar("R", bound=Record)

_ROW_GROUP = 5000


class StageRecord(BaseModel):
    """What stands in record.json: enough to know what a stage did, and whether it must be done again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    recipe: str
    """Hash of everything that decides the outcome: settings, inputs, models, pack, code."""
    read: int
    kept: int
    dropped: int
    drops: dict[str, int] = Field(default_factory=dict)
    """Dropped items by reason code."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Digest of each input by name."""
    models: dict[str, str] = Field(default_factory=dict)
    """Identity of each model by role."""
    code: str = ""
    seconds: float = 0.0
    costs: Costs = Costs()
    """What its answers cost."""
    figures: dict[str, float] = Field(default_factory=dict)
    """The stage's own figures by name."""
    finished_at: float = Field(default_factory=time.time)

    @property
    def digest(self) -> str:
        """Identity of the stage's output, for the recipe of the stage after it."""
        again = self.finished_at if self.costs.failed else 0  # by the same recipe it may be other items that fail
        return digest_of([self.stage, self.recipe, self.kept, self.dropped, again])


@cache
def code_version() -> str:
    """Digest (12 hex) of the source of tasks/ and of templates/words: a changed rule makes a stage decide again, from
    the answers it has."""
    tasks = Path(__file__).parents[1]
    hasher = hashlib.sha256()
    for file in (*sorted(tasks.rglob("*.py")), *sorted(tasks.parent.glob("templates/words/*.yaml"))):
        hasher.update(str(file.relative_to(tasks.parent)).encode() + b"\0" + file.read_bytes())
    return hasher.hexdigest()[:12]


def recipe_hash(**parts: object) -> str:
    """Hash of a stage's named ingredients; pydantic models and JSON-able values only."""
    plain = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in parts.items()}
    return digest_of(plain)[:16]


def finished(folder: Path, recipe: str) -> StageRecord | None:
    """The record of a whole stage made by this very recipe, or None if the stage must be done (again).

    So it must while questions failed: what was answered is in the ledger, and the server may be up by now.
    """
    record = read_record(folder)
    whole = (folder / "kept.parquet").exists() and (folder / "dropped.parquet").exists()
    return record if record is not None and whole and record.recipe == recipe and not record.costs.failed else None


def read_record(folder: Path) -> StageRecord | None:
    """The stage's record whatever its recipe; None where there is none or it can't be read."""
    try:
        return StageRecord.model_validate_json((folder / "record.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def write_stage(
    folder: Path, record: StageRecord, kept: Sequence[Record], dropped: Sequence[Dropped], input_ids: Iterable[str]
) -> StageRecord:
    """Write a stage's three files; returns the record with its counts filled in.

    Raises BooksError unless the sample ids of `kept` and `dropped` together are exactly `input_ids`.
    """
    check_books(record.stage, (_sample_id(k) for k in kept), (d.sample_id for d in dropped), input_ids)
    open_stage(folder)
    write_rows(folder / "kept.parquet", kept)
    write_rows(folder / "dropped.parquet", dropped)
    return close_stage(folder, record, len(kept), Counter(d.reason for d in dropped))


def open_stage(folder: Path) -> None:
    """Make the folder ready to be written: without its record it isn't whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").unlink(missing_ok=True)


def close_stage(folder: Path, record: StageRecord, kept: int, drops: Mapping[str, int]) -> StageRecord:
    """Write the record of a stage whose two other files are written, with its counts filled in; returns it.

    For stages too large to be held in memory; they check their books themselves (`check_books`).
    """
    dropped = sum(drops.values())
    record = record.model_copy(
        update={
            "read": kept + dropped,
            "kept": kept,
            "dropped": dropped,
            "drops": dict(sorted(drops.items())),
            "code": code_version(),
        }
    )
    write_bytes(folder / "record.json", orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
    return record


def check_books(stage: str, kept: Iterable[str], dropped: Iterable[str], input_ids: Iterable[str]) -> None:
    """Raise BooksError unless kept + dropped = input, id for id."""
    out, into = Counter(kept) + Counter(dropped), Counter(input_ids)
    if out != into:
        lost, extra = into - out, out - into
        raise BooksError(f"{stage}: kept + dropped ≠ input; lost {list(lost)[:5]}, appeared {list(extra)[:5]}")


class RowWriter:
    """Writes records of one type to a Parquet file, a few thousand in memory at a time; in place when all is well.

    A context manager: the file appears, atomically, when the block ends without an error. An empty file has the one
    column `sample_id`.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        self._path, self._kind = path, kind
        self._nested = nested_fields(kind)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._rows: list[dict[str, Any]] = []
        self._file: pq.ParquetWriter | None = None
        self._schema = pa.schema([(name, column_type(field.annotation)) for name, field in kind.model_fields.items()])

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        try:
            with writing(self._path):
                try:
                    if not failed:
                        self._flush(last=True)
                finally:
                    if self._file is not None:
                        self._file.close()
                if not failed:
                    _move_into_place(self._temporary, self._path)
        except StorageError:
            if not failed:  # else it is the block's own error that is raised
                raise
        finally:
            self._temporary.unlink(missing_ok=True)

    def write(self, row: Record) -> None:
        """Add one record."""
        dumped = row.model_dump(mode="json")
        self._rows.append({k: orjson.dumps(v).decode() if k in self._nested else v for k, v in dumped.items()})
        if len(self._rows) >= _ROW_GROUP:
            with writing(self._path):
                self._flush()

    def _flush(self, *, last: bool = False) -> None:
        if self._file is None:
            nothing = last and not self._rows
            schema = pa.schema([("sample_id", pa.string())]) if nothing else self._schema
            self._file = pq.ParquetWriter(self._temporary, schema)
            if nothing:
                self._file.write_table(schema.empty_table())
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def write_rows(path: Path, rows: Sequence[Record]) -> None:
    """Write records of one type to a Parquet file, atomically (see `RowWriter`)."""
    with RowWriter(path, type(rows[0]) if rows else Dropped) as writer:
        for row in rows:
            writer.write(row)


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """Read records that `write_rows` wrote."""
    return list(StoredRows(path, kind))


class StoredRows(Generic[R]):
    """The records of a file that `write_rows` wrote, read anew, a few thousand in memory, each time they are gone
    through."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self._path, self._kind = path, kind

    def __len__(self) -> int:
        return int(pq.read_metadata(self._path).num_rows)

    def __iter__(self) -> Iterator[R]:
        return (row for _, row in self.at(None))

    def at(self, places: Collection[int] | None) -> Iterator[tuple[int, R]]:
        """(place, record) of the records at these places (None: all), ascending; the others are not decoded."""
        nested, first = nested_fields(self._kind), 0
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_ROW_GROUP):
                wanted = range(batch.num_rows)
                if places is not None:
                    wanted = [i for i in wanted if first + i in places]
                    batch = batch.take(pa.array(wanted, pa.int64()))
                for i, row in zip(wanted, batch.to_pylist(), strict=True):
                    values = {k: orjson.loads(v) if k in nested else v for k, v in row.items()}
                    yield first + i, self._kind.model_validate(values)
                first += _ROW_GROUP


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: temporary name, fsync, move. Raises StorageError for a full disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            _move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _move_into_place(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def _sample_id(row: Record) -> str:
    return str(getattr(row, "sample_id", None) or row.id)  # pyright: ignore[reportAttributeAccessIssue]
