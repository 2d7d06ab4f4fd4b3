"""A server as our child: started, waited for, brought back when it dies, and ended with all that it started."""

import contextlib
import http.client
import logging
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import EngineError
from tasks.models.engines.processes import end_guarded, end_orphans, start_guarded
from tasks.models.engines.vllm.log import last_line

_log = logging.getLogger("labelstill")

RESTARTS = 7
"""Restarts in a row after none of which a single answer came; then the server is given up. One more than the client's
tries of a request that breaks the connection, so that one which kills the server is dropped before."""
_REPORT_SECONDS = 15.0
_POLL_SECONDS = 0.3
_HEALTH_SECONDS = 10.0
"""How long one look at the server's health may take: a busy machine answers late."""
_DEAF_SECONDS = 60.0
"""How long a living server may answer nothing before it is started again."""
_SURE_SECONDS = 2.0
_PORTS = 3
"""Free ports tried, should another program take one between our look and the server's start."""


def records_folder() -> Path:
    """Where running servers are noted for the next start, whatever run that belongs to: one folder a user."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "labelstill" / "servers"


@dataclass
class ServerProcess:
    """A model server on a port of this machine, kept alive. Nothing starts before `start`.

    All methods may be called from any thread.
    """

    command: Callable[[int], Sequence[str]]
    """Makes the command line for a port."""
    model: str
    """The name under which it serves, unlike that of any other server here."""
    environment: Mapping[str, str]
    log: Path
    start_seconds: float
    explain: Callable[[str], str]
    """Turns the log of a server that ended into what was wrong and what to change."""
    host: str = "127.0.0.1"
    """The address it listens on."""
    key: str = ""
    """The bearer token it wants; empty: none."""
    gpus: int = 0
    """The devices it holds."""
    records: Path = field(default_factory=records_folder)
    restarts: int = RESTARTS

    def __post_init__(self) -> None:
        self._record = self.records / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._guard: subprocess.Popen[bytes] | None = None
        self._port = self._log_start = self._fruitless = 0
        self._sure_at = -1e9

    @property
    def base_url(self) -> str:
        """The address for clients: the same after every restart."""
        return f"http://{self.host}:{self._port}/v1"

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The one address."""
        return (self.base_url,)

    def start(self) -> None:
        """Start the server and wait until it is ready; first end what a killed run of ours has left behind.

        Raises EngineError with what the server said when it won't start, or is not ready after `start_seconds`.
        """
        with self._lock:
            try:
                self.records.mkdir(parents=True, exist_ok=True)
                self.log.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise EngineError(f"cannot write {error.filename}: {error.strerror}; set XDG_STATE_HOME") from error
            for family in end_orphans(self.records):
                _log.warning("ended a server that a killed run had left: %s", " ".join(family.command)[:200])
            for attempt in range(_PORTS):
                self._port = _free_port(self.host)
                try:
                    self._launch()
                    return
                except _PortTaken:
                    if attempt == _PORTS - 1:
                        raise

    def answered(self) -> None:
        """Note that an answer has come: restarts so far were not in vain."""
        self._fruitless = 0

    def revive(self, base_url: str) -> str:
        """Return the address when the server answers (again), started anew where it is dead; the client calls this.

        Raises EngineError when it died again and again without having answered anything in between.
        """
        with self._lock:
            if self._is_well():
                return self.base_url
            if self._fruitless >= self.restarts:
                raise EngineError(self._complaint(f"vLLM died {self.restarts + 1} times without answering anything"))
            self._fruitless += 1
            _log.warning("vLLM does not answer (%s); starting it again", self._ending())
            self._end()
            self._launch()
        return self.base_url

    def close(self) -> None:
        """End the server and all its processes; returns when they are gone. Safe to call twice."""
        self._closed.set()
        with self._lock:
            self._end()

    def _launch(self) -> None:
        self._check_open()
        with self.log.open("ab") as sink:
            self._log_start = sink.tell()
            self._guard = start_guarded(self.command(self._port), self._record, self.environment, sink)
        try:
            self._await_ready()
        except BaseException:
            self._end()
            raise

    def _await_ready(self) -> None:
        began = reported = time.monotonic()
        while not self._answers():
            self._check_open()
            if self._ended():
                if "address already in use" in self._said():
                    raise _PortTaken(self._complaint("vLLM did not start"))
                raise EngineError(self._complaint(f"vLLM did not start ({self._ending()})"))
            now = time.monotonic()
            if now - began > self.start_seconds:
                late = f"vLLM was not ready within `start_seconds: {self.start_seconds:g}`; raise it"
                raise EngineError(f"{late}; it last said: {last_line(self._said())} (log: {self.log})")
            if now - reported >= _REPORT_SECONDS:
                reported = now
                _log.info("vLLM is starting, %.0f s: %s", now - began, last_line(self._said()))
            time.sleep(_POLL_SECONDS)
        _log.info("vLLM is ready after %.0f s", time.monotonic() - began)

    def _is_well(self) -> bool:
        """Whether it answers, and not just for its last moment: a dying server looks well for a second."""
        deaf_at = time.monotonic() + _DEAF_SECONDS
        while not self._ended() and time.monotonic() < deaf_at:
            self._check_open()
            if self._answers():
                if time.monotonic() - self._sure_at < _SURE_SECONDS:
                    return True
                time.sleep(_SURE_SECONDS / 2)
                if self._answers():
                    self._sure_at = time.monotonic()
                    return True
            time.sleep(_POLL_SECONDS)
        return False

    def _answers(self) -> bool:
        """Whether the server is well and is ours: another program may have been quicker to take the port."""
        return self._get("/health") is not None and self.model.encode() in (self._get("/v1/models") or b"")

    def _get(self, path: str) -> bytes | None:
        connection = http.client.HTTPConnection(self.host, self._port, timeout=_HEALTH_SECONDS)
        try:
            with contextlib.closing(connection):
                connection.request("GET", path, headers={"Authorization": f"Bearer {self.key}"} if self.key else {})
                response = connection.getresponse()
                content = response.read()
                return content if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None

    def _ended(self) -> bool:
        return self._guard is None or self._guard.poll() is not None

    def _ending(self) -> str:
        code = None if self._guard is None else self._guard.poll()
        if code is None:
            return "it is running"
        # the guard passes on a negative code, which is a signal, as a byte
        return f"killed by signal {256 - code}" if 191 < code < 256 else f"exit code {code}"

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise EngineError("the engine was closed")

    def _said(self) -> str:
        """What the log holds of this start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", errors="replace")

    def _complaint(self, what: str) -> str:
        return f"{what}: {self.explain(self._said())} (log: {self.log})"

    def _end(self) -> None:
        running, self._guard = self._guard, None
        if running is not None:
            end_guarded(running, self._record)


class _PortTaken(EngineError):
    """Another program took the port first."""


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
