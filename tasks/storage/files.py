"""Write files atomically, and report a full disk, an exceeded quota or a file size limit in plain words."""

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
"""Messages of libraries that give no error number (SQLite, safetensors, torch)."""


@contextmanager
def report_full_disk(path: Path) -> Generator[None]:
    """Context manager: raise StorageError, naming `path`, when a full disk, quota or size limit makes the block fail.

    A LabelstillError is passed on unchanged, because it already names its file.
    """
    try:
        yield
    except LabelstillError:
        raise
    except Exception as error:
        if (why := describe_full_disk(error)) is None:
            raise
        raise StorageError(f"{path} cannot be written: {why}; free disk space and run again") from error


@contextmanager
def replace_file(path: Path, *, sync: bool = True) -> Generator[Path]:
    """Yield the path of a temporary file, which is moved to `path` when the block ends without an error.

    Until then `path` is unchanged. With `sync=False`, a power failure may damage the file: use it only for files that
    can be made again. Raises StorageError for a full disk.
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
    """Write a file atomically (see `replace_file`)."""
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def describe_full_disk(error: Exception) -> str | None:
    """Return the system's message for a full disk, quota or file size limit; None for any other error.

    An error without a number, as some libraries raise, is recognised by its text.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in _FULL else None
    if isinstance(error, sqlite3.Error | OSError | RuntimeError) or type(error).__name__ == "SafetensorError":
        return next((words for words in _FULL_MESSAGES if words in str(error).lower()), None)
    return None
