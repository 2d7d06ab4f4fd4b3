"""Find, start and stop the project's background programs: the Prefect server, the page server and the workers.

A program keeps running after the command that started it has ended. It is recognised by its command line and by
PREFECT_HOME in its environment. PID files are not used, because they may be wrong after a kill or power cut.
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
    """Raised if the Prefect server, a worker or a deployment cannot be reached, started or registered.

    The message says what to do.
    """


@dataclass(frozen=True)
class Program:
    """A background program of the project in `root`. `arguments` are passed to the Python interpreter."""

    root: Path
    arguments: tuple[str, ...]
    log: Path
    what: str = "the program"
    """The program's name in messages."""

    def find(self) -> list[psutil.Process]:
        """Return the program's running processes, no matter which command started them."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # the process has ended or belongs to another user
                ours = process.cmdline()[1:] == list(self.arguments)
                if ours and process.environ().get("PREFECT_HOME") == str(self.root / ".prefect"):
                    found.append(process)
        return found

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the program in its own session, so that Ctrl-C in the terminal does not stop it."""
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
        """Start the program unless it is running, and wait until `ready` returns True.

        Raises ServerError, with `hint` and the end of the log, if the program stops first or `timeout` seconds pass.
        """
        if not self.find():
            print(f"Starting {self.what} (log: {self.log})", flush=True)
            self.start(environment)
        if self._wait_until(ready, timeout):
            return
        why = "stopped while starting"
        if hung := self.find():
            why = f"does not answer after {timeout:.0f} s; stop it with: kill {hung[0].pid}"
        name = self.what[0].upper() + self.what[1:]
        raise ServerError(f"{name} {why}. {hint}The last lines of {self.log}:\n{self.log_tail()}")

    def stop(self, patience: float = 15.0) -> bool:
        """Stop the program. Return False if it was not running."""
        return end_processes(self.find(), patience)

    def _wait_until(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Poll `ready` while the program runs, for at most `timeout` seconds, and print a line every ten seconds."""
        started = reported = time.monotonic()
        while not ready():
            time.sleep(_POLL_SECONDS)  # before `find`: a process has no command line in its first milliseconds
            now = time.monotonic()
            if now - started > timeout or not self.find():
                return ready()
            if now - reported >= _PROGRESS_SECONDS:
                reported = now
                print(f"  … waiting for {self.what}, {now - started:.0f} s", flush=True)
        return True

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the program's log, for an error message."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
