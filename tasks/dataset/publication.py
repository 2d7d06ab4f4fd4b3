"""Publish a version of the training set, and go back to an earlier one.

Each version is written to a folder of its own, ``<output>/emit-<number>``, and not changed afterwards. The link
``<output>/emit`` points to the published version and ``<output>/candidate`` to the one made last. Links are switched
atomically, so a process that is killed at any moment leaves a whole version published: the old one or the new one.
Folders and links stand side by side, so that relative paths in the exports are right through a link too.
"""

import os
import re
import shutil
from pathlib import Path
from secrets import token_hex

from tasks.dataset.versions import Version, record_version
from tasks.storage.stage_record import read_record

PUBLISHED = "emit"
CANDIDATE = "candidate"
KEPT = 5
"""Number of published versions that are kept with all their files, for `labelstill relabel --undo`."""
_NUMBERED = re.compile(rf"{PUBLISHED}-(\d+)")


def make_version_folder(output: Path) -> Path:
    """Create and return the folder for a new version."""
    folder = output / f"{PUBLISHED}-{max(_list_folders(output), default=0) + 1}"
    folder.mkdir(parents=True)
    return folder


def make_candidate(output: Path, folder: Path, keep: int = KEPT) -> None:
    """Make the finished version in `folder` the candidate; delete the one before, unless it was published."""
    _switch(output / CANDIDATE, folder)
    _delete_unused(output, keep)


def publish(output: Path, folder: Path, keep: int = KEPT) -> Version:
    """Publish the finished version in `folder` as it is, record it, and return it. Keep the last `keep` versions."""
    record = read_record(folder)
    assert record is not None, f"{folder} is not finished"
    version = record_version(output, folder / "kept.parquet", record.recipe)
    _switch(output / PUBLISHED, folder)
    _delete_unused(output, keep)
    return version


def find_earlier(output: Path) -> Path | None:
    """Return the folder of the version that was published before the present one, or None if it is not kept."""
    present = _read_number(output / PUBLISHED)
    folders = _list_folders(output)
    earlier = [number for number, folder in folders.items() if number < present and read_record(folder) is not None]
    return folders[max(earlier)] if earlier else None


def _switch(link: Path, folder: Path) -> None:
    """Let `link` point to `folder`, atomically."""
    temporary = link.with_name(f".{link.name}.{token_hex(4)}")
    temporary.symlink_to(folder.name)  # relative, so that the output folder can be moved
    if link.is_dir() and not link.is_symlink():  # made by a version of labelstill that had no links
        link.rename(link.with_name(f"{link.name}-0"))
    os.replace(temporary, link)


def _delete_unused(output: Path, keep: int) -> None:
    """Delete all but the last `keep` published versions and the candidate."""
    folders = _list_folders(output)
    present = _read_number(output / PUBLISHED)
    # A number above that of the present version: never published, or taken back
    published = sorted((n for n, folder in folders.items() if n <= present and read_record(folder)), reverse=True)
    used = {*published[:keep], _read_number(output / CANDIDATE)}
    for number in folders.keys() - used:
        (folders[number] / "record.json").unlink(missing_ok=True)  # if killed now, it does not count as whole
        shutil.rmtree(folders[number])


def _list_folders(output: Path) -> dict[int, Path]:
    """Return the folders of all versions, finished or not, keyed by number."""
    found = {folder: _NUMBERED.fullmatch(folder.name) for folder in output.glob(f"{PUBLISHED}-*")}
    return {int(match[1]): folder for folder, match in found.items() if match}


def _read_number(link: Path) -> int:
    """Return the number of the version that `link` points to, or -1 if there is no link."""
    match = _NUMBERED.fullmatch(link.readlink().name) if link.is_symlink() else None
    return int(match[1]) if match else -1
