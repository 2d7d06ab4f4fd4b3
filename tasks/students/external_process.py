"""A foreign trainer as our child: run to its end and watched, and never left running, whatever becomes of us."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.models.engines.processes import end_guarded, end_orphans, start_guarded

_POLL_SECONDS = 0.3


def run_child(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout_seconds: float | None,
    look: Callable[[], None],
) -> int | None:
    """Run `command`, its output to folder/train.log; returns its exit code (above 191: 256 − signal).

    Returns None where it took longer than `timeout_seconds`. `look` is called several times a second meanwhile. Between
    us and the child stands the engines' guard, so that the whole family ends when we are killed; what outlived the
    guard too is ended by the next run in the same folder. After a timeout, and whatever `look` raises, the family is
    ended first.
    """
    record = folder / "process" / "trainer.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    with (folder / "train.log").open("ab") as sink:
        child = start_guarded(command, record, environment, sink)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    try:
        while (code := child.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                return None
            look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_SECONDS)
        return code
    finally:
        end_guarded(child, record)


def end_leftovers(folder: Path) -> None:
    """End what a killed run has left running in `folder`."""
    end_orphans(folder / "process")
