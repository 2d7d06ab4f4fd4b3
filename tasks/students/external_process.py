"""Run an external trainer as a child process that never outlives this one."""

import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.models.engines.processes import end_guarded, end_orphans, start_guarded

_POLL_SECONDS = 0.3


def run_child(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    poll: Callable[[], None],
) -> int:
    """Run `command` and write its output to folder/train.log; return its exit code.

    An exit code above 191 is 256 minus the number of the signal that killed the child. `poll` is called several times
    per second. The child runs under the engines' guard process, so that it and its children end when this process is
    killed; `end_leftovers` ends what survives the guard. They are also ended whenever `poll` raises.
    """
    record = folder / "process" / "trainer.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    with (folder / "train.log").open("ab") as sink:
        child = start_guarded(command, record, environment, sink)
    try:
        while (code := child.poll()) is None:
            poll()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_SECONDS)
        return code
    finally:
        end_guarded(child, record)


def end_leftovers(folder: Path) -> None:
    """End the processes that a killed run has left running in `folder`."""
    end_orphans(folder / "process")
