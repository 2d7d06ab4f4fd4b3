"""A foreign trainer as our child: run to its end and watched, and never left running, whatever becomes of us."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.models.engines.vllm import guard

_POLL_SECONDS = 0.3
_GUARD_PATIENCE = guard.PATIENCE_SECONDS + 10.0


class TimedOut(Exception):
    """The child took longer than it was given."""


def run_child(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout_seconds: float | None,
    look: Callable[[], None],
) -> int:
    """Run `command`, its output to folder/train.log; returns its exit code (above 191: 256 − signal).

    `look` is called several times a second meanwhile. Between us and the child stands the engines' guard, so that the
    whole family ends when we are killed; what outlived the guard too is ended by the next run in the same folder.
    Raises TimedOut; then, and whatever `look` raises, the family is ended first.
    """
    record = folder / "process" / "trainer.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    with (folder / "train.log").open("ab") as sink:
        child = subprocess.Popen(
            # -P: the folder of the script holds modules whose names are none of its business
            [sys.executable, "-P", guard.__file__, str(record), str(os.getpid()), *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    try:
        while (code := child.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOut
            look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_SECONDS)
        return code
    finally:
        _end(child, record)


def end_leftovers(folder: Path) -> None:
    """End what a killed run has left running in `folder`."""
    guard.end_orphans(folder / "process")


def describe_exit(code: int) -> str:
    """Say what an exit code of `run_child` means."""
    return f"was killed by signal {256 - code}" if code > 191 else f"ended with exit code {code}"


def _end(child: subprocess.Popen[bytes], record: Path) -> None:
    if child.poll() is not None:
        return
    family = guard.read_record(record)
    child.terminate()
    try:
        child.wait(timeout=_GUARD_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    # nothing is left of it unless the guard itself was killed
    if family is not None:
        guard.end_family(family)
    record.unlink(missing_ok=True)
