"""A chat-completions server that answers at once and rightly, or misbehaves on purpose; a process of its own.

`python -m tests.stub_server --port P --options JSON` serves until its standard input closes, so that it never outlives
whoever started it; `running(Options(...))` does that for a test. An item is what a request's text names as `item-123`;
a request that names none is a probe. Faults are drawn by item and attempt, at most `most_faults` an item, so that a
patient client always gets its answer, except for the items in `always`.

Beside `/v1/models` and `/v1/chat/completions`: GET `/stats?target=N` (`Book.figures`), `/seen`; POST `/mark`, `/clear`.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.stub_answers import Fault, Gap, Thinks
from tests.stub_handler import CRASHED, Options, serve

__all__ = ["Fault", "Gap", "Options", "Running", "Thinks", "running"]

ROOT = Path(__file__).parent.parent
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The stub is on this machine: a proxy from the environment would only be in the way."""


def _supervise(port: int, options: Options) -> int:
    """Serve in a child, and start the next one when it crashes on purpose."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    while True:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            asyncio.run(serve(port, options))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != CRASHED:
            return 1
        time.sleep(options.down_seconds)


def _end_with_starter() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


@dataclass(frozen=True)
class Running:
    """A stub that is up."""

    url: str
    """With `/v1`, as an engine wants it."""
    _root: str
    _process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once; safe to call twice."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def stats(self, target: int = 0) -> dict[str, Any]:
        """`Book.figures`; waits while the server is down."""
        return json.loads(_call(f"{self._root}/stats?target={target}"))

    def seen(self) -> int:
        """Items asked so far; cheap enough to be looked at all the time."""
        return int(_call(f"{self._root}/seen"))

    def mark(self) -> None:
        """See `Book.mark`."""
        _call(f"{self._root}/mark", b"")

    def clear(self) -> None:
        """Reset all counts."""
        _call(f"{self._root}/clear", b"")


def _call(url: str, data: bytes | None = None, seconds: float = 30.0) -> bytes:
    give_up = time.monotonic() + seconds
    while True:
        try:
            with _DIRECT.open(urllib.request.Request(url, data=data), timeout=seconds) as answer:
                return answer.read()
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError) or time.monotonic() > give_up:
                raise
            time.sleep(0.05)


@contextmanager
def running(options: Options | None = None, port: int = 0) -> Iterator[Running]:
    """A stub server in a process of its own on a free port (or on `port`); it ends with the block."""
    if port == 0:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    text = json.dumps(asdict(options or Options()), default=list)
    command = [sys.executable, "-m", "tests.stub_server", "--port", str(port), "--options", text]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
    stub = Running(f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{port}", process)
    try:
        stub.stats()
        yield stub
    finally:
        stub.kill()


def _parse(text: str) -> Options:
    values = json.loads(text)
    values["gaps"] = frozenset(Gap(name) for name in values.get("gaps", ()))
    values["thinks"] = Thinks(values.get("thinks", ""))
    values["faults"] = {Fault(name): share for name, share in values.get("faults", {}).items()}
    values["always"] = {item: Fault(name) for item, name in values.get("always", {}).items()}
    return Options(**values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--options", default="{}", help="JSON of the fields of Options")
    arguments = parser.parse_args()
    sys.exit(_supervise(arguments.port, _parse(arguments.options)))
