"""Read raw items and their positions from manifests: JSON arrays, JSON Lines, CSV and Parquet.

A manifest may be a folder. Its manifest files are then read in order of their names and form one set, which grows as
files are added. This module checks only whether an item can be read at all; tasks/items/samples.py checks the rest.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tasks.errors import ManifestError
from tasks.items.refusals import Reason, Unusable
from tasks.packs.columns import DEFAULT_COLUMNS, Columns

pc: Any = pyarrow.compute  # its stubs lack the functions that are made at import


@dataclass(frozen=True)
class RawItem:
    """An item as the file contains it. In its strings, lone surrogates stand for bytes that are not UTF-8."""

    fallback_id: str
    """The name that the item gets if it has no id."""
    where: str
    """Its position for messages: `item 3`, `line 3`, `row 3 (line 5)`."""
    value: object
    """In Parquet files, a cell of a column that `columns` does not name is True if it is filled, else None."""
    flaw: Unusable | None = None
    """Why the item cannot be read; None when it can."""

    @property
    def fields(self) -> dict[str, object] | None:
        """Return the item's fields; None if its value is not an object."""
        return cast(dict[str, object], self.value) if isinstance(self.value, dict) else None

    def list_unread(self, columns: Columns) -> list[str]:
        """Return the keys that have a value but that `columns` does not name, so that nothing reads them."""
        fields = self.fields or {}
        return [key for key, value in fields.items() if key not in columns.named and not _is_empty(value)]


def read_items(manifest: Path, columns: Columns = DEFAULT_COLUMNS) -> list[RawItem]:
    """Return all items of a manifest file in the order of the file.

    The file extension decides the format; a `.json` file may contain an array or JSON Lines. `columns` names the
    columns of CSV and Parquet files and the keys of JSON objects. Raises ManifestError when the file is missing, of an
    unknown kind, or not readable in its format.
    """
    reader = _READERS.get(manifest.suffix.lower())
    if reader is None:
        raise ManifestError(f"{manifest}: unknown file type; use {', '.join(KINDS)}")
    try:
        if not manifest.is_file():
            raise ManifestError(f"{manifest}: no such file; correct the manifest's path")
        return list(reader(manifest, columns))
    except OSError as error:
        raise ManifestError(f"{manifest}: cannot be read: {error.strerror or error}; check its permissions") from error


def count_unread(items: Iterable[RawItem], columns: Columns) -> dict[str, int]:
    """Map each key that nothing reads to the number of items in which it has a value, most frequent first."""
    return dict(Counter(_legible(key) for item in items for key in item.list_unread(columns)).most_common())


def _is_empty(value: object) -> bool:
    if isinstance(value, list | dict):
        return not value
    return value is None or value == "" or value != value  # an empty cell of a table may be NaN


def _text(manifest: Path) -> str:
    data = manifest.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError(f"{manifest}: the file is UTF-16; save it as UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


# --- JSON ----------------------------------------------------------------------------------------------------


def _read_json(manifest: Path, columns: Columns) -> Iterator[RawItem]:
    text = _text(manifest)
    if not text.strip():
        raise ManifestError(f"{manifest}: the file is empty; write a JSON array of items, or one item per line")
    try:
        content = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            yield from _lines(manifest, text)
            return
        raise _not_json(manifest, error) from error
    if isinstance(content, list):
        for number, value in enumerate(cast(list[object], content), 1):
            yield _make_json_item(f"item-{number}", f"item {number}", value)
    elif isinstance(content, dict) and any(name in content for name in columns.needed):
        yield _make_json_item("item-1", "item 1", cast(object, content))
    else:
        raise ManifestError(f"{manifest}, line 1: contains a single {describe_type(content)}; write an array of items")


def _read_lines(manifest: Path, columns: Columns) -> Iterator[RawItem]:
    yield from _lines(manifest, _text(manifest))


def _lines(manifest: Path, text: str) -> Iterator[RawItem]:
    """Yield one item per line; a bad line is a bad item. Raises ManifestError when no line is valid."""
    first_error: tuple[int, Exception] | None = None
    good = 0
    # Only \n ends a line: str.splitlines would also cut at U+2028, which JSON allows inside strings.
    for number, line in enumerate(text.split("\n"), 1):
        name, where = f"line-{number}", f"line {number}"
        if not line.strip():
            continue
        if not is_utf8(line):
            good += 1
            yield RawItem(name, where, None, Unusable(Reason.NOT_UTF8, "contains bytes that are not UTF-8"))
            continue
        try:
            value: object = json.loads(line, object_pairs_hook=_Object)
            good += 1
            yield _make_json_item(name, where, value)
        except (ValueError, RecursionError) as error:
            first_error = first_error or (number, error)
            yield RawItem(name, where, None, Unusable(Reason.MALFORMED, f"is not JSON: {error}"))
    if first_error and not good:
        raise _not_json(manifest, first_error[1], first_error[0]) from first_error[1]


class _Object(dict[str, object]):
    """A JSON object. Of several values with the same key, a plain dict would keep only the last."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.repeated = [] if len(self) == len(pairs) else _find_repeated(key for key, _ in pairs)


def _make_json_item(name: str, where: str, value: object) -> RawItem:
    if not isinstance(value, _Object) or not value.repeated:
        return RawItem(name, where, value)
    detail = f"contains the key `{_legible(value.repeated[0])}` more than once; keep one, or rename the others"
    return RawItem(name, where, value, Unusable(Reason.DUPLICATE_KEY, detail))


def _find_repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _not_json(manifest: Path, error: Exception, line: int | None = None) -> ManifestError:
    if isinstance(error, json.JSONDecodeError):
        place = f", line {line or error.lineno}, column {error.colno}"
        return ManifestError(f"{manifest}{place}: not JSON: {error.msg}; correct the file there, or export it again")
    return ManifestError(f"{manifest}, line {line or 1}: not JSON: {error}; export the file again")


# --- tables --------------------------------------------------------------------------------------------------


def _read_csv(manifest: Path, columns: Columns) -> Iterator[RawItem]:
    # A long dialogue may exceed Python's default limit of 131,072 characters per cell.
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(io.StringIO(_text(manifest), newline=""), strict=True)
    header: list[str] | None = None
    number = 0
    try:
        for row in rows:
            if not row:
                continue
            if header is None:
                header = [name.strip() or f"column {number}" for number, name in enumerate(row, 1)]
                _check_columns(manifest, header, columns)
                continue
            number += 1
            name, where = f"item-{number}", f"row {number} (line {rows.line_num})"
            if len(row) == len(header):
                yield RawItem(name, where, dict(zip(header, row, strict=True)))
            else:
                detail = f"has {len(row)} cells, but the header has {len(header)}; put texts with commas in quotes"
                yield RawItem(name, where, None, Unusable(Reason.MALFORMED, detail))
    except csv.Error as error:
        raise ManifestError(f"{manifest}, line {rows.line_num}: not CSV: {error}; correct the quotes there") from error


def _read_parquet(manifest: Path, columns: Columns) -> Iterator[RawItem]:
    try:
        table = pq.ParquetFile(manifest)
        names: list[str] = table.schema_arrow.names
        _check_columns(manifest, names, columns)
        _check_id_type(manifest, table.schema_arrow, columns)
        number = 0
        for batch in table.iter_batches(_BATCH_ROWS):
            read: dict[str, list[object]] = {
                name: _cells(batch.column(name)) if name in columns.named else _find_filled(batch.column(name))
                for name in names
            }
            for i in range(batch.num_rows):
                number += 1
                yield RawItem(f"item-{number}", f"row {number}", {name: cells[i] for name, cells in read.items()})
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{manifest}: not Parquet: {str(error).splitlines()[0]}; export it again") from error


_BATCH_ROWS = 1000
"""Few rows, because an unread column may contain whole images."""


def _check_id_type(manifest: Path, schema: pa.Schema, columns: Columns) -> None:
    """Raise ManifestError if the ids are numbers of 16 or 32 bits with rounded digits."""
    if columns.id is not None and schema.field(columns.id).type in (pa.float16(), pa.float32()):
        kind = schema.field(columns.id).type
        raise ManifestError(f"{manifest}: the ids in column `{columns.id}` are of type {kind}, which rounds large "
                            "numbers; store the ids as text or whole numbers")  # fmt: skip


def _find_filled(column: pa.Array) -> list[object]:
    """Return True for each cell that is not empty, and None for the others, without decoding the cells."""
    kind = column.type
    filled = column.is_valid()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        filled = pc.greater(pc.list_value_length(column), 0)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        filled = pc.greater(pc.binary_length(column), 0)
    return [cell or None for cell in filled.to_pylist()]


def _cells(column: pa.Array) -> list[object]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_cell(cell) for cell in column]


def _cell(cell: pa.Scalar) -> object:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return "\udcff"


def _check_columns(manifest: Path, names: list[str], columns: Columns) -> None:
    repeated = _find_repeated(names)
    if repeated:
        raise ManifestError(f"{manifest}: has several columns named `{repeated[0]}`; keep one, or rename the others")
    missing = [name for name in columns.needed if name not in names]
    if missing:
        there = ", ".join(names[:8])
        raise ManifestError(
            f"{manifest}: no column `{missing[0]}`, only {there}; name the columns {', '.join(columns.named)}, or give "
            "their names in `columns` of pack.yaml"
        )


def describe_type(value: object) -> str:
    """Return the name of a JSON value's type for messages."""
    if isinstance(value, dict):
        return "object"
    names: dict[type, str] = {
        list: "list",
        str: "text",
        bool: "boolean",
        int: "number",
        float: "number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def is_utf8(text: str) -> bool:
    """Return False for a string that contains lone surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_READERS: dict[str, Callable[[Path, Columns], Iterator[RawItem]]] = {
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
KINDS = tuple(_READERS)  # file extensions


# --- folders -------------------------------------------------------------------------------------------------


def list_manifest_files(folder: Path) -> list[Path]:
    """Return the manifest files in `folder`, sorted by name.

    Folders, other file types, and hidden or incomplete files (`.x.json`, `~$x.csv`, `x.json.part`, `x.json~`) are left
    out.
    """
    return sorted(
        path for path in folder.iterdir()
        if path.suffix.lower() in KINDS and not path.name.startswith((".", "~")) and path.is_file()
    )  # fmt: skip


def read_manifests(manifest: Path, columns: Columns) -> list[tuple[str, RawItem]]:
    """Return (manifest file, item) for every item of a manifest, or of all manifests in a folder, in file order.

    For a folder, an item's `where` and `fallback_id` begin with the file's name, and some of the files may be empty.
    Raises ManifestError as `read_items` does, and when there are no items at all. One unreadable file stops the reading
    of the whole folder, because the number of its items is unknown.
    """
    if not os.path.isdir(manifest):  # Path.is_dir raises where a folder above can't be entered
        found = [(source_of(manifest), item) for item in read_items(manifest, columns)]
        if not found:
            raise ManifestError(f"{manifest}: contains no items; give a manifest with items")
        return found
    try:
        files = list_manifest_files(manifest)
    except OSError as error:
        raise ManifestError(f"{manifest}: cannot be read: {error.strerror or error}; check its permissions") from error
    found = [pair for file in files for pair in _placed(file, read_items(file, columns))]
    if not found:
        raise ManifestError(f"{manifest}: no manifest in this folder contains items; add one ({', '.join(KINDS)})")
    return found


def _placed(file: Path, items: list[RawItem]) -> list[tuple[str, RawItem]]:
    source, name = source_of(file), _legible(file.name)
    return [
        (source, replace(item, fallback_id=f"{name}:{item.fallback_id}", where=f"{name}, {item.where}"))
        for item in items
    ]


def source_of(file: Path) -> str:
    """Return the absolute path by which samples refer to their manifest file."""
    return _legible(str(file.resolve()))


def _legible(path: str) -> str:
    # A file name may contain bytes that are not UTF-8; records must be writable all the same.
    return path.encode(errors="replace").decode()
