# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# (pyarrow publishes no types)
"""Edits of a Parquet manifest: it is written anew with its rows, their order, types and schema as they were.

Cells that no edit touches are passed on as Arrow slices, so whatever they hold stays, text that is not UTF-8 included.
Compression and row groups are pyarrow's own choice.
"""

import base64
import bisect
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq


class TableUndo(TypedDict):
    """What `edit_table` took away, fit for JSON."""

    rows: list[int]
    """Numbers of the edited rows, from 0, ascending."""
    removed: list[int]
    """Of these, the ones that were cut out."""
    table: str
    """These rows as they were: an Arrow IPC stream in base64, since JSON has not its types."""


class _Row(NamedTuple):
    """At `place` of a table, put `new` (one row, or none), and leave out the row that is there if it is `replaced`."""

    place: int
    new: pa.Table | None
    replaced: bool


def edit_table(data: bytes, wanted: Mapping[int, str | None]) -> tuple[bytes, TableUndo]:
    """A Parquet manifest with other texts in `output`: as `manifest_edits.edit`."""
    table = _table(data)
    edits = [
        _Row(place, None if output is None else _with_output(table.slice(place, 1), output), True)
        for place, output in sorted(wanted.items())
    ]
    before = pa.concat_tables([table.slice(0, 0), *(table.slice(edit.place, 1) for edit in edits)])
    undo: TableUndo = {
        "rows": [edit.place for edit in edits],
        "removed": [edit.place for edit in edits if edit.new is None],
        "table": base64.b64encode(_ipc(before)).decode(),
    }
    return _parquet(_woven(table, edits)), undo


def restore_table(data: bytes, undo: TableUndo) -> bytes:
    """The rows that `edit_table` was given, as a Parquet file."""
    with pa.ipc.open_stream(base64.b64decode(undo["table"])) as stream:
        before = stream.read_all()
    removed: list[int] = undo["removed"]
    gone = set(removed)
    # Row r of the original is row r - (those cut out before it) of the copy.
    edits = [
        _Row(row - bisect.bisect_left(removed, row), before.slice(n, 1), row not in gone)
        for n, row in enumerate(undo["rows"])
    ]
    return _parquet(_woven(_table(data), edits))


def _woven(table: pa.Table, edits: Sequence[_Row]) -> pa.Table:
    parts, at = [table.slice(0, 0)], 0
    for edit in edits:
        parts.append(table.slice(at, edit.place - at))
        parts += [] if edit.new is None else [edit.new]
        at = edit.place + edit.replaced
    return pa.concat_tables([*parts, table.slice(at)]).unify_dictionaries()


def _with_output(row: pa.Table, output: str) -> pa.Table:
    column = row.schema.get_field_index("output")
    field = row.schema.field(column)
    return row.set_column(column, field, pa.array([output], field.type))


def _table(data: bytes) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(data)).read()


def _ipc(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
