"""Read raw items and their positions from manifests: JSON arrays, JSON Lines, CSV and Parquet.

A manifest may be a folder. Its manifest files are then read in order of their names and form one set, which grows as
files are added. This module checks only whether an item can be read at all; tasks/items/samples.py checks the rest.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tasks.errors import ManifestError
from tasks.items.foreign_files import explain_foreign_items
from tasks.items.json_manifests import read_json, read_json_lines
from tasks.items.raw_items import RawItem, legible
from tasks.items.tables import read_csv, read_parquet
from tasks.packs.columns import DEFAULT_COLUMNS, Columns


def read_items(manifest: Path, columns: Columns = DEFAULT_COLUMNS, unpacked: Path | None = None) -> list[RawItem]:
    """Return all items of a manifest file in the order of the file.

    The file extension decides the format; a `.json` file may contain an array or JSON Lines. `columns` names the
    columns of CSV and Parquet files and the keys of JSON objects. Images inside a Parquet file are written to
    `unpacked`. Raises ManifestError when the file is missing, of an unknown kind, or not readable in its format.
    """
    items = _read(manifest, columns, unpacked)
    if foreign := explain_foreign_items(items, columns):
        raise ManifestError(f"{manifest}: {foreign}")
    return items


def read_all_columns(manifest: Path) -> list[RawItem]:
    """Return all items of a manifest file with all their columns, for those who do not know yet what these mean.

    Parquet files with images inside are not read so. Raises ManifestError as `read_items` does, except about columns.
    """
    return _read(manifest, None, None)


def _read(manifest: Path, columns: Columns | None, unpacked: Path | None) -> list[RawItem]:
    reader = _READERS.get(manifest.suffix.lower())
    if reader is None:
        packed = manifest.suffix.lower() in (".gz", ".bz2", ".xz", ".zip", ".zst")
        raise ManifestError(
            f"{manifest}: {'unpack it first' if packed else 'unknown file type'}; use {', '.join(KINDS)}"
        )
    try:
        if not manifest.is_file():
            raise ManifestError(f"{manifest}: no such file; correct the manifest's path")
        return list(reader(manifest, columns, unpacked))
    except OSError as error:
        raise ManifestError(f"{manifest}: cannot be read: {error.strerror or error}; check its permissions") from error


_READERS: dict[str, Callable[[Path, Columns | None, Path | None], Iterator[RawItem]]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".parquet": read_parquet,
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


def read_manifests(manifest: Path, columns: Columns, unpacked: Path | None = None) -> list[tuple[str, RawItem]]:
    """Return (manifest file, item) for every item of a manifest, or of all manifests in a folder, in file order.

    For a folder, an item's `where` and `fallback_id` begin with the file's name, and some of the files may be empty.
    Raises ManifestError as `read_items` does, and when there are no items at all. One unreadable file stops the reading
    of the whole folder, because the number of its items is unknown.
    """
    if not os.path.isdir(manifest):  # Path.is_dir raises where a folder above can't be entered
        found = [(source_of(manifest), item) for item in read_items(manifest, columns, unpacked)]
        if not found:
            raise ManifestError(f"{manifest}: contains no items; give a manifest with items")
        return found
    try:
        files = list_manifest_files(manifest)
    except OSError as error:
        raise ManifestError(f"{manifest}: cannot be read: {error.strerror or error}; check its permissions") from error
    found = [pair for file in files for pair in _placed(file, read_items(file, columns, unpacked))]
    if not found:
        raise ManifestError(f"{manifest}: no manifest in this folder contains items; add one ({', '.join(KINDS)})")
    return found


def _placed(file: Path, items: list[RawItem]) -> list[tuple[str, RawItem]]:
    source, name = source_of(file), legible(file.name)
    return [
        (source, replace(item, fallback_id=f"{name}:{item.fallback_id}", where=f"{name}, {item.where}"))
        for item in items
    ]


def source_of(file: Path) -> str:
    """Return the absolute path by which samples refer to their manifest file."""
    return legible(str(file.resolve()))
