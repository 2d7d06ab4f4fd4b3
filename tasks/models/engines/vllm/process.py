"""A server as our child: started, waited for, brought back when it dies, and ended with all that it started."""

import contextlib
import http.client
import json
import logging
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.errors import EngineError
from tasks.models.engines.processes import end_guarded, end_orphans, start_guarded

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


class ServerProcess:
    """A model server on a port of this machine, kept alive. Meets `client.Keeper` and `vllm.engine.Servers`.

    `command` makes the command line for a port; `model` is the name under which it serves, unlike that of any other
    server here; `host` is the address it listens on, `key` the bearer token it wants (empty: none), `gpus` are the
    devices it holds. `explain` turns the log of a server that ended into what was wrong and what to change. Nothing
    starts before `start`. All methods may be called from any thread.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        model: str,
        *,
        environment: Mapping[str, str],
        log: Path,
        start_seconds: float,
        explain: Callable[[str], str],
        last_line: Callable[[str], str],
        host: str = "127.0.0.1",
        key: str = "",
        gpus: int = 0,
        records: Path | None = None,
        restarts: int = RESTARTS,
    ) -> None:
        self.log = log
        self.key, self.gpus = key, gpus
        self._host = host
        self._command, self.model, self._environment = command, model, environment
        self._start_seconds, self._explain, self._last_line = start_seconds, explain, last_line
        self._records, self._restarts = records or records_folder(), restarts
        self._record = self._records / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._port = self._log_start = self._fruitless = 0
        self._sure_at = -1e9

    @property
    def base_url(self) -> str:
        """The address for clients: the same after every restart."""
        return f"http://{self._host}:{self._port}/v1"

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
                self._records.mkdir(parents=True, exist_ok=True)
                self.log.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise EngineError(f"cannot write {error.filename}: {error.strerror}; set XDG_STATE_HOME") from error
            for family in end_orphans(self._records):
                _log.warning("ended a server that a killed run had left: %s", " ".join(family.command)[:200])
            for attempt in range(_PORTS):
                self._port = _free_port(self._host)
                try:
                    self._launch()
                    return
                except _PortTaken:
                    if attempt == _PORTS - 1:
                        raise

    def context_length(self) -> int | None:
        """The most tokens that the served model takes; vLLM 0.32 says it of a model, not of its adapters."""
        entries = json.loads(self._get("/v1/models") or b"{}").get("data", ())
        return max((length for entry in entries if isinstance(length := entry.get("max_model_len"), int)), default=None)

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
            if self._fruitless >= self._restarts:
                raise EngineError(self._complaint(f"vLLM died {self._restarts + 1} times without answering anything"))
            self._fruitless += 1
            _log.warning("vLLM does not answer (%s); starting it again", self._ending())
            self._end()
            self._launch()
        return self.base_url

    def close(self) -> None:
        """End the server and all its processes; returns when they are gone. Safe to call twice."""
        if os.getpid() != self._owner:  # a fork of ours does not own it
            return
        self._closed.set()
        with self._lock:
            self._end()

    def _launch(self) -> None:
        self._check_open()
        with self.log.open("ab") as sink:
            self._log_start = sink.tell()
            self._guard = start_guarded(self._command(self._port), self._record, self._environment, sink)
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
            if now - began > self._start_seconds:
                late = f"vLLM was not ready within `start_seconds: {self._start_seconds:g}`"
                raise EngineError(f"{late}; it last said: {self._last_line(self._said())} (log: {self.log})")
            if now - reported >= _REPORT_SECONDS:
                reported = now
                _log.info("vLLM is starting, %.0f s: %s", now - began, self._last_line(self._said()))
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
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_HEALTH_SECONDS)
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
        return f"{what}: {self._explain(self._said())} (log: {self.log})"

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
