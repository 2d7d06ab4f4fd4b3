"""The project's background programs: the server, the page server and the workers, found again, started and ended.

A program outlives the command that starts it. It is known by its command line and by the project's PREFECT_HOME in its
environment, so nothing has to be noted that a kill or a power cut would make wrong.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tasks.errors import LabelstillError
from tasks.models.engines.processes import end_processes

_LOG_LIMIT = 5_000_000
_POLL_SECONDS = 0.5
_PROGRESS_SECONDS = 10.0


class ServerError(LabelstillError):
    """The Prefect server, a worker or the deployments cannot be reached, started or registered; the text says what to
    do."""


@dataclass(frozen=True)
class Program:
    """A program that runs in the background of the project in `root`; `arguments` are Python's."""

    root: Path
    arguments: tuple[str, ...]
    log: Path
    what: str = "the program"
    """Its name in messages."""

    def find(self) -> list[psutil.Process]:
        """Return its living processes, whichever command started them."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # it has ended, or belongs to somebody else
                ours = process.cmdline()[1:] == list(self.arguments)
                if ours and process.environ().get("PREFECT_HOME") == str(self.root / ".prefect"):
                    found.append(process)
        return found

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it in a session of its own, so that Ctrl-C in the terminal does not reach it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        mode = "wb" if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT else "ab"
        with self.log.open(mode) as sink:
            subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=self.root,
                env={**os.environ, **environment, "PREFECT_HOME": str(self.root / ".prefect")},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_until(
        self, ready: Callable[[], bool], timeout: float, environment: Mapping[str, str], *, hint: str = ""
    ) -> None:
        """Start it unless it runs, and wait until it is `ready`.

        Raises ServerError, with `hint` and the end of its log, when it ends before that or after `timeout` seconds.
        """
        if not self.find():
            print(f"Starting {self.what} (log: {self.log})", flush=True)
            self.start(environment)
        if self._wait_until(ready, timeout):
            return
        why = "ended at its start"
        if hung := self.find():
            why = f"does not answer after {timeout:.0f} s; end it with: kill {hung[0].pid}"
        raise ServerError(f"{self.what} {why}. {hint}The last lines of {self.log}:\n{self.log_tail()}")

    def stop(self, patience: float = 15.0) -> bool:
        """End it; return False when it does not run."""
        return end_processes(self.find(), patience)

    def _wait_until(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Poll `ready` while the program lives, for at most `timeout` seconds, with a line each ten seconds."""
        started = reported = time.monotonic()
        while not ready():
            time.sleep(_POLL_SECONDS)  # before the look: a process has no command line in its first milliseconds
            now = time.monotonic()
            if now - started > timeout or not self.find():
                return ready()
            if now - reported >= _PROGRESS_SECONDS:
                reported = now
                print(f"  … waiting for {self.what}, {now - started:.0f} s", flush=True)
        return True

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of its log, for an error message."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
