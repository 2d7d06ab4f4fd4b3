"""Keep the message of a run that failed because of its models, so that the card and the summary can show it.

The file ``<output>/failure.txt`` exists only until the next run of that folder begins.
"""

from pathlib import Path

from tasks.storage.files import write_bytes

FILE = "failure.txt"


def write_failure(output: Path, error: Exception) -> None:
    """Keep the error's message."""
    write_bytes(output / FILE, str(error).encode())


def read_failure(output: Path) -> str:
    """Return the message of the last run, or an empty text if it did not fail in this way."""
    file = output / FILE
    return file.read_text(encoding="utf-8") if file.exists() else ""


def forget_failure(output: Path) -> None:
    """Delete the message, because a new run begins."""
    (output / FILE).unlink(missing_ok=True)
