"""Write files whole or not at all, and say plainly when a disk refuses them: full, over quota, over a size limit."""

import errno
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from tasks.errors import LabelstillError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_MESSAGES = ("no space left on device", "disk is full", "disk quota exceeded", "file too large")
"""What libraries that keep no error number (SQLite, safetensors, torch) write instead."""


@contextmanager
def report_full_disk(path: Path) -> Generator[None]:
    """Raise StorageError, naming `path`, for a full disk, quota or size limit within the block.

    Our own errors pass unchanged: they name what they are about.
    """
    try:
        yield
    except LabelstillError:
        raise
    except Exception as error:
        if (why := describe_full_disk(error)) is None:
            raise
        raise StorageError(f"{path} can't be written: {why}; free disk space, run again") from error


@contextmanager
def replace_file(path: Path, *, sync: bool = True) -> Generator[Path]:
    """Give a temporary file's path to write to, and move it to `path` when the block ends without an error.

    Until then `path` stays as it was. With `sync` off, a power cut may tear the file: only for what can be made again.
    Raises StorageError for a full disk.
    """
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        with report_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if sync:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically (see `replacing`)."""
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def describe_full_disk(error: Exception) -> str | None:
    """Return the system's words for a full disk, quota or file size limit; None when `error` is anything else.

    `error` is judged by its number or, where a library keeps none, by its text.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in _FULL else None
    if isinstance(error, sqlite3.Error | OSError | RuntimeError) or type(error).__name__ == "SafetensorError":
        return next((words for words in _FULL_MESSAGES if words in str(error).lower()), None)
    return None
