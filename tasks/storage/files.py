"""What a disk refuses, in words: a full one, a quota, a limit on a file's size."""

import errno
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import LabelstillError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID = ("no space left on device", "disk is full", "disk quota exceeded", "file too large")
"""How libraries that keep no error number (SQLite, safetensors, torch) pass it on."""


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Raise StorageError, which names `path` and the mend, for a full disk, quota or size limit within the block.

    Errors of ours pass: they name what they are about.
    """
    try:
        yield
    except LabelstillError:
        raise
    except Exception as error:
        if (why := full_disk(error)) is None:
            raise
        raise StorageError(f"{path} can't be written: {why}; free disk space, run again") from error


def full_disk(error: Exception) -> str | None:
    """How the system says that the disk, a quota or a limit on a file's size stood against a write; None: it did not.

    `error` is judged by its number or, where it is a library's own, by its text.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in _FULL else None
    if isinstance(error, sqlite3.Error | OSError | RuntimeError) or type(error).__name__ == "SafetensorError":
        return next((words for words in _SAID if words in str(error).lower()), None)
    return None
