"""Detect changed files by size and modification time, without reading them."""

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from tasks.items.manifests import list_manifest_files
from tasks.records import digest_of

_UNREACHABLE = "unreachable"
"""The state of a file whose metadata cannot be read; whoever opens it later reports the cause and the fix."""
_GONE = (FileNotFoundError, NotADirectoryError)


def read_file_state(path: Path) -> str:
    """Return the size and modification time of a file; for a folder, return a digest of the states of its manifests.

    A digest of the content would be slow. Returns `missing` for a path that does not exist, and `unreachable` for one
    that cannot be examined.
    """
    try:
        state = path.stat()
        if S_ISDIR(state.st_mode):
            return digest_of(
                [[os.fsencode(file.name).hex(), read_file_state(file)] for file in list_manifest_files(path)]
            )[:16]
    except _GONE:
        return "missing"
    except OSError:
        return _UNREACHABLE
    return _size_and_time(state)


def read_folder_state(folder: Path) -> str:
    """Return the number of a folder's files and a digest of their names, sizes and modification times.

    Linked folders are not followed. A file or folder that cannot be examined counts as one file whose state is
    `unreachable`. The digest is a sum over the files, so their order does not matter and no list is kept in memory.
    """
    count = total = 0
    root = os.path.join(folder, "")
    for path, state in _files(root):
        line = f"{path[len(root) :]}\0{state}".encode(errors="surrogateescape")
        total += int.from_bytes(blake2b(line, digest_size=16).digest())
        count += 1
    return f"{count}:{total % (1 << 128):032x}"


def _files(root: str) -> Iterator[tuple[str, str]]:
    """Yield (path, state) of every file below `root`; files that vanish meanwhile are left out."""
    faults: list[OSError] = []
    for folder, _, names in os.walk(root, onerror=faults.append):
        for path in (os.path.join(folder, name) for name in names):
            try:
                state = os.stat(path)
            except _GONE:
                continue
            except OSError:
                yield path, _UNREACHABLE
            else:
                if S_ISREG(state.st_mode):
                    yield path, _size_and_time(state)
    yield from ((fault.filename, _UNREACHABLE) for fault in faults if not isinstance(fault, _GONE))


def _size_and_time(state: os.stat_result) -> str:
    return f"{state.st_size}:{state.st_mtime_ns}"
