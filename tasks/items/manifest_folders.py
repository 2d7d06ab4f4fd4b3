"""A manifest that is a folder: all manifest files in it, by name, are one set that grows as files are put there."""

import os
from dataclasses import replace
from pathlib import Path

from tasks.errors import ManifestError
from tasks.items.manifests import KINDS, RawItem, items_of, read_items
from tasks.packs.columns import Columns


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
        return [(source_of(manifest), item) for item in read_items(manifest, columns)]
    try:
        files = manifest_files(manifest)
    except OSError as error:
        raise ManifestError(f"{manifest}: cannot be read: {error.strerror or error}; check its permissions") from error
    found = [pair for file in files for pair in _placed(file, items_of(file, columns))]
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
