"""One data set, one run: the lock on an output folder, whichever deployment, terminal or machine a run comes from.

It is the operating system's lock on `<output>/.run.lock`, so it is free at once when its holder dies, however that
went. Who holds it stands beside it, in `.run.json`, for those who wait.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.errors import ConfigError
from tasks.storage.files import write_bytes

_LOCK = ".run.lock"
_HOLDER = ".run.json"
_SAY_SECONDS = 30.0
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Holder:
    """The run that works on an output folder: what `.run.json` holds."""

    host: str
    pid: int
    run: str
    since: float
    """When it took the lock, in seconds since 1970."""

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"run {self.run!r} (host {self.host}, pid {self.pid}), since {began}"


@contextmanager
def output_lock(
    output: Path, run: str, say: Callable[[str], None] = print, every: float = _SAY_SECONDS
) -> Iterator[None]:
    """Hold the folder `output`, made if need be, for the run named `run` until the block ends.

    While another process holds it this waits, and says so through `say` at once and each `every` seconds, naming the
    holder. The process that holds a folder already may take it again: a stage's flow does not wait for its parent.
    Raises ConfigError when the folder can't be made or written.
    """
    folder = output.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # one lock object a folder in this process, whichever thread asks: that is what lets it be taken again
        lock = FileLock((folder / _LOCK).resolve(), thread_local=False, is_singleton=True, poll_interval=_POLL_SECONDS)
        _wait_for(lock, folder, say, every)
    except OSError as error:
        raise ConfigError(f"output: {output} can't be written ({error.strerror}); name a folder of yours") from error
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            holder = Holder(socket.gethostname(), os.getpid(), run, time.time())
            write_bytes(folder / _HOLDER, json.dumps(asdict(holder), ensure_ascii=False).encode())
        yield
    finally:
        if outermost:
            (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()


def holder_of(output: Path) -> Holder | None:
    """Who last noted that they hold `output`; None where nobody did, or the note can't be read."""
    try:
        return Holder(**json.loads((output / _HOLDER).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _wait_for(lock: FileLock, folder: Path, say: Callable[[str], None], every: float) -> None:
    began, patience = time.monotonic(), 0.0
    while True:
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            patience = every
            holder = holder_of(folder) or "another run"
            say(f"waits, {time.monotonic() - began:.0f} s so far: {folder} belongs to {holder}")
        else:
            if patience:
                say(f"goes on after {time.monotonic() - began:.0f} s: {folder} is free")
            return
