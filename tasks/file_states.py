"""Whether files have changed since they were last looked at, by size and time of change, without reading them."""

import os
from hashlib import blake2b
from pathlib import Path

from tasks.manifest_folders import manifest_files
from tasks.records import digest_of


def file_state(path: Path) -> str:
    """Size and time of change of a file, or those of all manifests in a folder: a cheap stand-in for its digest."""
    if path.is_dir():
        return digest_of([[os.fsencode(file.name).hex(), file_state(file)] for file in manifest_files(path)])[:16]
    state = path.stat() if path.exists() else None
    return f"{state.st_size}:{state.st_mtime_ns}" if state else "missing"


def folder_state(folder: Path) -> str:
    """Count and a digest of names, sizes and times of change of a folder's files; those of linked folders are left out.

    The digest is a sum of the files' own, so that neither their order nor their number costs memory.
    """
    count = total = 0
    root = os.path.join(folder, "")
    waiting = [root] if folder.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file():
                    state, name = entry.stat(), entry.path[len(root) :]
                    line = f"{name}\0{state.st_size}:{state.st_mtime_ns}".encode(errors="surrogateescape")
                    total += int.from_bytes(blake2b(line, digest_size=16).digest())
                    count += 1
    return f"{count}:{total % (1 << 128):032x}"
