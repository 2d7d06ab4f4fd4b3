"""Read and write records as rows of a Parquet file, with a few thousand in memory at a time.

A field's type decides the type of its column; an excluded field is not stored. A nested field is
stored as JSON text, which any reader can show.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.records import Record
from tasks.storage.files import replace_file

R = TypeVar("R", bound=Record)

_ROW_GROUP = 5000


class RowWriter:
    """Writes records of one type to a Parquet file, with a few thousand in memory at a time.

    A context manager: the file appears atomically when the block ends without an error. Without records it has the
    same columns.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        self._path = path
        self._nested = nested_fields(kind)
        fields = kind.model_fields.items()
        columns = [(name, column_type(field.annotation)) for name, field in fields if not field.exclude]
        self._schema = pa.schema(columns or [("sample_id", pa.string())])
        self._stack = ExitStack()
        self._rows: list[dict[str, Any]] = []
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> "RowWriter":
        self._temporary = self._stack.enter_context(replace_file(self._path))
        self._stack.push(self._finish)
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def write(self, row: Record) -> None:
        """Add one record."""
        dumped = row.model_dump(mode="json")
        self._rows.append({k: orjson.dumps(v).decode() if k in self._nested else v for k, v in dumped.items()})
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def _finish(self, failed: object, *_: object) -> None:
        # If the block failed, its own error is raised, whatever happens when the file is closed.
        with suppress(OSError) if failed else nullcontext():
            try:
                if not failed and (self._rows or self._file is None):
                    self._flush()
            finally:
                if self._file is not None:
                    self._file.close()

    def _flush(self) -> None:
        if self._file is None:
            self._file = pq.ParquetWriter(self._temporary, self._schema)
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def write_rows(path: Path, rows: Sequence[Record], kind: type[Record] = Record) -> None:
    """Write records of one type to a Parquet file, atomically. Without rows, `kind` decides the columns."""
    with RowWriter(path, type(rows[0]) if rows else kind) as writer:
        for row in rows:
            writer.write(row)


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """Return all records of a file that `write_rows` or a `RowWriter` wrote."""
    return list(StoredRows(path, kind))


class StoredRows(Generic[R]):
    """The records of a Parquet file. Each iteration reads the file again, a few thousand records at a time."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self._path, self._kind = path, kind

    def __len__(self) -> int:
        return int(pq.read_metadata(self._path).num_rows)

    def __iter__(self) -> Iterator[R]:
        return (row for _, row in self.at(None))

    def at(self, places: Collection[int] | None) -> Iterator[tuple[int, R]]:
        """Yield (position, record) for the positions in `places` (None: all), ascending; others are not decoded."""
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


# --- columns -------------------------------------------------------------------------------------------------


def nested_fields(kind: type[Record]) -> set[str]:
    """Return the names of the fields that are stored as JSON text. The declared types decide which they are."""
    return {name for name, field in kind.model_fields.items() if _plain_type(field.annotation) is None}


def column_type(annotation: Any) -> Any:
    """Return the Arrow type for a field's annotation: text if it is nested, else that of its first type except None."""
    kind = _plain_type(annotation)
    if kind is None or issubclass(kind, str):
        return pa.string()
    return pa.bool_() if issubclass(kind, bool) else pa.int64() if issubclass(kind, int) else pa.float64()


def _plain_type(annotation: Any) -> type | None:
    """Return the first type, except None, of a field of text or numbers; None for a nested field."""
    kinds: Sequence[Any] = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    kinds = [str if get_origin(kind) is Literal else kind for kind in kinds if kind is not NoneType]
    plain = all(isinstance(kind, type) and issubclass(kind, (str, int, float)) for kind in kinds)
    return kinds[0] if plain else None
