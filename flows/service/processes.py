"""Processes that outlive the command that starts them, found again and ended only if they are ours; and a pool of such
that do not."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

import psutil

_LOG_LIMIT = 5_000_000
_POLL_SECONDS = 0.25
_PROGRESS_SECONDS = 10.0
_OWNER_SECONDS = 1.0


@dataclass(frozen=True)
class Child:
    """A process known by its record on disk: `{"pid": …, "created": …}`.

    A pid alone is no proof, the system gives it out again: the time of creation and the words of the command line
    must agree as well before the process is taken for ours.
    """

    record: Path
    words: tuple[str, ...]

    def process(self) -> psutil.Process | None:
        """The living process, or None."""
        try:
            noted = json.loads(self.record.read_text(encoding="utf-8"))
            process = psutil.Process(int(noted["pid"]))
            same = abs(process.create_time() - float(noted["created"])) < 1 and process.status() != psutil.STATUS_ZOMBIE
            return process if same and set(self.words) <= set(process.cmdline()) else None
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None


def start_detached(
    child: Child, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path
) -> None:
    """Start `command` in a session of its own, so that Ctrl-C in the terminal does not reach it, and note its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    mode = "wb" if log.exists() and log.stat().st_size > _LOG_LIMIT else "ab"
    with log.open(mode) as sink:
        started = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = psutil.Process(started.pid)
    # empty in the first milliseconds (24 of 150 starts): who looks then would take it for somebody else's
    deadline = time.monotonic() + 1.0
    while started.poll() is None and not process.cmdline() and time.monotonic() < deadline:
        time.sleep(0.005)
    noted = {"pid": started.pid, "created": process.create_time()}
    temporary = child.record.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(noted), encoding="utf-8")
    temporary.replace(child.record)


def wait_until(ready: Callable[[], bool], child: Child, timeout: float, *, what: str) -> bool:
    """Poll `ready` while `child` lives, for at most `timeout` seconds, with a line of progress every ten seconds."""
    started = reported = time.monotonic()
    while not ready():
        now = time.monotonic()
        if now - started > timeout or child.process() is None:
            return False
        if now - reported >= _PROGRESS_SECONDS:
            reported = now
            print(f"  … waiting for {what}, {now - started:.0f} s", flush=True)
        time.sleep(_POLL_SECONDS)
    return True


def stop_child(child: Child, patience: float) -> bool:
    """End the process and its descendants, kindly first; False when there is nothing of ours to end."""
    process = child.process()
    if process is None:
        child.record.unlink(missing_ok=True)
        return False
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs([process], timeout=patience)
    for member in family if alive else family[1:]:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=5)
    child.record.unlink(missing_ok=True)
    return True


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file, for an error message."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@contextmanager
def worker_pool(count: int, initializer: Callable[..., object], *arguments: object) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` fresh processes, each begun with `initializer(*arguments)`, that never outlives us.

    The executor itself would let its processes finish what they do, for hours, before a cancelled run ends, and leave
    them running when we are killed. When an exception leaves the block they are killed, and when we are gone they end.
    """
    others = set(active_children())
    start = (os.getpid(), initializer, *arguments)
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, start) as pool:
        try:
            yield pool
        except BaseException:
            for child in set(active_children()) - others:
                child.kill()
            pool.shutdown(cancel_futures=True)
            raise


def _begin(owner: int, initializer: Callable[..., object], *arguments: object) -> None:
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    initializer(*arguments)


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_OWNER_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
