"""Read raw items from the rows of CSV and Parquet files."""

import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tasks.errors import ManifestError
from tasks.items.foreign_files import suggest_columns
from tasks.items.raw_items import RawItem, find_repeated, read_text
from tasks.items.refusals import Reason, Unusable
from tasks.packs.columns import Columns
from tasks.storage.files import write_bytes

pc: Any = pyarrow.compute  # its stubs lack the functions that are made at import


def read_csv(manifest: Path, columns: Columns | None, _: Path | None) -> Iterator[RawItem]:
    """Yield one item per row; raises ManifestError if the columns are wrong or the file is not CSV."""
    # A long dialogue may exceed Python's default limit of 131,072 characters per cell.
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(io.StringIO(read_text(manifest), newline=""), strict=True)
    header: list[str] | None = None
    number = 0
    try:
        for row in rows:
            if not row:
                continue
            if header is None:
                header = [clean_name(name) or f"column {number}" for number, name in enumerate(row, 1)]
                _check_separator(manifest, header)
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


def _check_separator(manifest: Path, header: list[str]) -> None:
    """Raise ManifestError if the only column's name looks like several, separated by other characters than commas."""
    found = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if found:
        raise ManifestError(f"{manifest}: its cells are separated by {found!r}; save it with commas (CSV UTF-8)")


def clean_name(name: str) -> str:
    """Return a column's name without the spaces and byte-order marks around it."""
    return name.strip(" \t\ufeff\u200b").strip()


def read_parquet(manifest: Path, columns: Columns | None, unpacked: Path | None) -> Iterator[RawItem]:
    """Yield one item per row; raises ManifestError if the columns are wrong or the file is not Parquet.

    Images and recordings inside the file, as `datasets` stores them, are written to the folder `unpacked`, unless it is
    None. Their names are their digests. `columns` None means all columns, for files without such images.
    """
    try:
        table = pq.ParquetFile(manifest)
        names: list[str] = table.schema_arrow.names
        _check_columns(manifest, names, columns)
        _check_id_type(manifest, table.schema_arrow, columns)
        number = 0
        media = set() if columns is None else {columns.image, columns.video} & set(names)
        packed = {name for name in media if contains_bytes(table.schema_arrow.field(name).type)}
        for batch in table.iter_batches(_BATCH_ROWS_WITH_IMAGES if packed else _BATCH_ROWS):
            read: dict[str, list[object]] = {
                name: [unpack_image(cell.as_py(), unpacked) for cell in batch.column(name)]
                if name in packed
                else _cells(batch.column(name))
                if columns is None or name in columns.read
                else _find_filled(batch.column(name))
                for name in names
            }
            for i in range(batch.num_rows):
                number += 1
                yield RawItem(f"item-{number}", f"row {number}", {name: cells[i] for name, cells in read.items()})
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{manifest}: not Parquet: {str(error).splitlines()[0]}; export it again") from error


_MOST_SHOWN = 40
"""Characters of a column's name in a message: a file without a header has a whole item there."""
_BATCH_ROWS = 1000
"""Few rows, because an unread column may contain whole images."""
_BATCH_ROWS_WITH_IMAGES = 64
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


def contains_bytes(kind: pa.DataType) -> bool:
    """Return whether cells are files as `datasets` stores them ({bytes, path}), plain bytes, or lists of these."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def unpack_image(cell: Any, folder: Path | None) -> object:
    """Return the file name of an image, or of each image in a list, and write the file to `folder` if it is new."""
    if isinstance(cell, list):
        return [unpack_image(image, folder) for image in cast(list[object], cell)]
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        return cell.get("path") if isinstance(cell, dict) else cell
    suffix = next((suffix for start, suffix in _SUFFIXES.items() if data.startswith(start)), ".bin")
    name = hashlib.sha256(data).hexdigest() + suffix
    if folder is not None and not (folder / name).exists():
        write_bytes(folder / name, data)
    return name


def _check_id_type(manifest: Path, schema: pa.Schema, columns: Columns | None) -> None:
    """Raise ManifestError if the ids are numbers of 16 or 32 bits with rounded digits."""
    if columns is not None and columns.id is not None and schema.field(columns.id).type in (pa.float16(), pa.float32()):
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


def _check_columns(manifest: Path, names: list[str], columns: Columns | None) -> None:
    repeated = find_repeated(names)
    if repeated:
        raise ManifestError(f"{manifest}: has several columns named `{repeated[0]}`; keep one, or rename the others")
    if columns is None:
        return
    missing = [name for name in columns.needed if name not in names]
    if missing:
        there = ", ".join(" ".join(name.split())[:_MOST_SHOWN] for name in names[:8])
        fix = suggest_columns(columns, names) or (
            f"; name the columns {', '.join(columns.named)}, or give their names in `columns` of pack.yaml"
        )
        raise ManifestError(f"{manifest}: no column `{missing[0]}`, only {there}{fix}")
