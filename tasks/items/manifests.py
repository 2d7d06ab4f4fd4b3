# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Manifest files -> raw items with their positions: JSON array, JSON Lines, CSV, Parquet.

A manifest may be a folder: all manifest files in it, by name, are one set that grows as files are put there. Nothing is
judged here beyond what keeps an item from being read at all; tasks/items/samples.py checks the rest.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import ManifestError
from tasks.items.refusals import Reason, Unusable
from tasks.packs.columns import DEFAULT_COLUMNS, Columns


@dataclass(frozen=True)
class RawItem:
    """An item as the file holds it. Bytes that are not UTF-8 stand in its strings as lone surrogates."""

    fallback_id: str
    """What it is called when it has no id of its own."""
    where: str
    """For people: `item 3`, `line 3`, `row 3 (line 5)`."""
    value: object
    flaw: Unusable | None = None
    """Set when there is no value."""

    @property
    def fields(self) -> dict[str, object] | None:
        """The value as an object's fields; None when it is no object."""
        return cast(dict[str, object], self.value) if isinstance(self.value, dict) else None


def read_items(manifest: Path, columns: Columns = DEFAULT_COLUMNS) -> list[RawItem]:
    """All items of a manifest in order; the extension names the format, `.json` may hold an array or lines.

    `columns` are what it calls the fields, in CSV and Parquet by their header, in JSON the objects' keys.
    Raises ManifestError when the file is missing, of an unknown kind, or not readable as its format.
    """
    reader = _READERS.get(manifest.suffix.lower())
    if reader is None:
        raise ManifestError(f"{manifest}: unknown kind of manifest; use {', '.join(KINDS)}")
    try:
        if not manifest.is_file():
            raise ManifestError(f"{manifest}: no such file; correct the manifest's path")
        return list(reader(manifest, columns))
    except OSError as error:
        raise ManifestError(f"{manifest}: cannot be read: {error.strerror or error}; check its permissions") from error


def _text(manifest: Path) -> str:
    data = manifest.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError(f"{manifest}: is UTF-16; save it as UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


# --- JSON ----------------------------------------------------------------------------------------------------


def _read_json(manifest: Path, columns: Columns) -> Iterator[RawItem]:
    text = _text(manifest)
    if not text.strip():
        raise ManifestError(f"{manifest}: is empty; expected a JSON array of items, or one item a line")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            yield from _lines(manifest, text)
            return
        raise _not_json(manifest, error) from error
    if isinstance(content, list):
        for number, value in enumerate(cast(list[object], content), 1):
            yield RawItem(f"item-{number}", f"item {number}", value)
    elif isinstance(content, dict) and any(name in content for name in columns.needed):
        yield RawItem("item-1", "item 1", cast(object, content))
    else:
        raise ManifestError(f"{manifest}, line 1: holds one {kind_of(content)}; expected an array of items")


def _read_lines(manifest: Path, columns: Columns) -> Iterator[RawItem]:
    yield from _lines(manifest, _text(manifest))


def _lines(manifest: Path, text: str) -> Iterator[RawItem]:
    """One item a line. A bad line is a bad item; no good line at all is a bad file."""
    first_error: tuple[int, Exception] | None = None
    good = 0
    # Only \n ends a line: str.splitlines would also cut at U+2028, which JSON allows inside strings.
    for number, line in enumerate(text.split("\n"), 1):
        name, where = f"line-{number}", f"line {number}"
        if not line.strip():
            continue
        if not is_utf8(line):
            good += 1
            yield RawItem(name, where, None, Unusable(Reason.NOT_UTF8, "holds bytes that are not UTF-8"))
            continue
        try:
            value: object = json.loads(line)
            good += 1
            yield RawItem(name, where, value)
        except (ValueError, RecursionError) as error:
            first_error = first_error or (number, error)
            yield RawItem(name, where, None, Unusable(Reason.MALFORMED, f"is not JSON: {error}"))
    if first_error and not good:
        raise _not_json(manifest, first_error[1], first_error[0]) from first_error[1]


def _not_json(manifest: Path, error: Exception, line: int | None = None) -> ManifestError:
    if isinstance(error, json.JSONDecodeError):
        place = f", line {line or error.lineno}, column {error.colno}"
        return ManifestError(f"{manifest}{place}: not JSON: {error.msg}; mend the file there, or write it anew")
    return ManifestError(f"{manifest}, line {line or 1}: not JSON: {error}; write the file anew")


# --- tables --------------------------------------------------------------------------------------------------


def _read_csv(manifest: Path, columns: Columns) -> Iterator[RawItem]:
    # Python's default of 131,072 characters a cell is less than a long dialogue may have.
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(io.StringIO(_text(manifest), newline=""), strict=True)
    header: list[str] | None = None
    number = 0
    try:
        for row in rows:
            if not row:
                continue
            if header is None:
                header = [name.strip() for name in row]
                _check_columns(manifest, header, columns)
                continue
            number += 1
            name, where = f"item-{number}", f"row {number} (line {rows.line_num})"
            if len(row) == len(header):
                yield RawItem(name, where, dict(zip(header, row, strict=True)))
            else:
                detail = f"has {len(row)} cells, the header {len(header)}; put texts with commas in quotes"
                yield RawItem(name, where, None, Unusable(Reason.MALFORMED, detail))
    except csv.Error as error:
        raise ManifestError(f"{manifest}, line {rows.line_num}: not CSV: {error}; mend the quotes there") from error


def _read_parquet(manifest: Path, columns: Columns) -> Iterator[RawItem]:
    try:
        table = pq.ParquetFile(manifest)
        names: list[str] = table.schema_arrow.names
        _check_columns(manifest, names, columns)
        number = 0
        for batch in table.iter_batches(columns=[name for name in columns.named if name in names]):
            read: dict[str, list[object]] = {
                name: _cells(batch.column(name)) for name in cast(list[str], batch.schema.names)
            }
            for i in range(batch.num_rows):
                number += 1
                yield RawItem(f"item-{number}", f"row {number}", {name: cells[i] for name, cells in read.items()})
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{manifest}: not Parquet: {str(error).splitlines()[0]}; write it anew") from error


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
    missing = [name for name in columns.needed if name not in names]
    if missing:
        there = ", ".join(names[:8])
        raise ManifestError(
            f"{manifest}: no column `{missing[0]}`, only {there}; name them {', '.join(columns.named)}, or say in "
            "`columns` of pack.yaml what they are called"
        )


def kind_of(value: object) -> str:
    """What a JSON value is called, for people."""
    names: dict[type, str] = {
        dict: "object",
        list: "list",
        str: "text",
        bool: "boolean",
        int: "number",
        float: "number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def is_utf8(text: str) -> bool:
    """False when a string stands for bytes that are not UTF-8, or holds half a surrogate pair."""
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
KINDS = tuple(_READERS)  # endings of file names


# --- folders -------------------------------------------------------------------------------------------------


def manifest_files(folder: Path) -> list[Path]:
    """The manifest files in `folder`, by name.

    Left out are folders, other kinds of files, and names that mean a file is hidden or not yet whole: `.x.json`,
    `~$x.csv`, `x.json.part`, `x.json~`.
    """
    return sorted(
        path for path in folder.iterdir()
        if path.suffix.lower() in KINDS and not path.name.startswith((".", "~")) and path.is_file()
    )  # fmt: skip


def read_set(manifest: Path, columns: Columns) -> list[tuple[str, RawItem]]:
    """(manifest file (absolute path), item) of every item of a manifest, or of the manifests in a folder, in order.

    In a folder, an item's place and the name it has without an id begin with its file's name, and a file may hold no
    items. Raises ManifestError as `read_items` does, and for a folder that holds no items at all: one file that can't
    be read stops the set, since nothing says how many items it had.
    """
    if not os.path.isdir(manifest):  # Path.is_dir raises where a folder above can't be entered
        found = [(source_of(manifest), item) for item in read_items(manifest, columns)]
        if not found:
            raise ManifestError(f"{manifest}: holds no items; point to a manifest that has some")
        return found
    try:
        files = manifest_files(manifest)
    except OSError as error:
        raise ManifestError(f"{manifest}: cannot be read: {error.strerror or error}; check its permissions") from error
    found = [pair for file in files for pair in _placed(file, read_items(file, columns))]
    if not found:
        raise ManifestError(f"{manifest}: no manifest in this folder holds items; put one there ({', '.join(KINDS)})")
    return found


def _placed(file: Path, items: list[RawItem]) -> list[tuple[str, RawItem]]:
    source, name = source_of(file), _legible(file.name)
    return [
        (source, replace(item, fallback_id=f"{name}:{item.fallback_id}", where=f"{name}, {item.where}"))
        for item in items
    ]


def source_of(file: Path) -> str:
    """Return what samples call the manifest file they were read from."""
    return _legible(str(file.resolve()))


def _legible(path: str) -> str:
    # A file's name may hold bytes that are not UTF-8; the books must be writable all the same.
    return path.encode(errors="replace").decode()
