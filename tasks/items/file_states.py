"""Whether files have changed since they were last looked at, by size and time of change, without reading them."""

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from tasks.items.manifests import manifest_files
from tasks.records import digest_of

_UNREACHABLE = "unreachable"
"""The state of what is there and can't be looked at; who reads it later says why, and what to do."""
_GONE = (FileNotFoundError, NotADirectoryError)


def file_state(path: Path) -> str:
    """Size and time of change of a file, or those of all manifests in a folder: a cheap stand-in for its digest.

    A word stands for what is missing, or can't be looked at.
    """
    try:
        state = path.stat()
        if S_ISDIR(state.st_mode):
            return digest_of([[os.fsencode(file.name).hex(), file_state(file)] for file in manifest_files(path)])[:16]
    except _GONE:
        return "missing"
    except OSError:
        return _UNREACHABLE
    return _size_and_time(state)


def folder_state(folder: Path) -> str:
    """Count and a digest of names, sizes and times of change of a folder's files; those of linked folders are left out.

    A file or folder that can't be looked at counts as one file, with a word for its size and time. The digest is a sum
    of the files' own, so that neither their order nor their number costs memory.
    """
    count = total = 0
    root = os.path.join(folder, "")
    for path, state in _files(root):
        line = f"{path[len(root) :]}\0{state}".encode(errors="surrogateescape")
        total += int.from_bytes(blake2b(line, digest_size=16).digest())
        count += 1
    return f"{count}:{total % (1 << 128):032x}"


def _files(root: str) -> Iterator[tuple[str, str]]:
    """(path, state) of every file below `root`, and of what can't be looked at; what goes meanwhile was never there."""
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
