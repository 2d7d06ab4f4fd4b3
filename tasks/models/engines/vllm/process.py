"""Start a server as a child process, wait until it is ready, restart it when it dies, and end all its processes."""

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
from tasks.models.engines.gpus import await_memory, list_gpus
from tasks.models.engines.processes import end_guarded, end_orphans, start_guarded
from tasks.models.engines.vllm.log import find_last_line

_log = logging.getLogger("labelstill")

RESTARTS = 7
"""The server is given up after this many restarts without a single answer. It is one more than the client's attempts at
a request that breaks the connection, so a request that crashes the server is dropped first."""
_REPORT_SECONDS = 15.0
START_SECONDS = 1800.0
"""Longest time that loading a model may take."""
_POLL_SECONDS = 0.3
_HEALTH_SECONDS = 10.0
"""Timeout of a health check: a busy machine answers late."""
_SILENT_SECONDS = 60.0
"""Time without an answer after which a living server is restarted."""
_SURE_SECONDS = 2.0
_LESS_SHARE = "lower `gpu_memory_utilization`"
_PORTS = 3
"""Free ports to try: another program may take one before the server does."""


def get_records_folder() -> Path:
    """Return the user's folder in which running servers are recorded, so that a later run finds abandoned ones."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "labelstill" / "servers"


@dataclass
class ServerProcess:
    """A model server on a port of this machine. `start` starts it; `revive` restarts it when it has died.

    All methods may be called from any thread.
    """

    command: Callable[[int], Sequence[str]]
    """Returns the command line that starts the server on a given port."""
    model: str
    """The model's name on the server. No other server on this machine may use this name."""
    environment: Mapping[str, str]
    log: Path
    explain: Callable[[str], str]
    """Takes the log of a server that has ended; returns what was wrong and what to change."""
    host: str = "127.0.0.1"
    """The address that the server listens on."""
    key: str = ""
    """The API key that the server requires; empty for none."""
    gpus: int = 0
    """Number of GPUs that the server uses."""
    start_seconds: float = START_SECONDS
    gpu_share: float = 0.0
    """Share of each of these GPUs' memory that must be free before the server is started."""
    records: Path = field(default_factory=get_records_folder)
    restarts: int = RESTARTS

    def __post_init__(self) -> None:
        self._record = self.records / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._guard: subprocess.Popen[bytes] | None = None
        self._port = self._log_start = self._restarts_without_answer = 0
        self._sure_at = -1e9

    @property
    def base_url(self) -> str:
        """Return the server's address for clients; it stays the same after a restart."""
        return f"http://{self.host}:{self._port}/v1"

    @property
    def base_urls(self) -> tuple[str, ...]:
        """Return the address as a tuple of one."""
        return (self.base_url,)

    def start(self) -> None:
        """End servers that killed runs have left behind; then start the server and wait until it is ready.

        Raises EngineError with the server's message when the server does not start or is not ready in `start_seconds`.
        """
        with self._lock:
            try:
                self.records.mkdir(parents=True, exist_ok=True)
                self.log.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise EngineError(
                    f"cannot write {error.filename}: {error.strerror}; set XDG_STATE_HOME to a writable folder"
                ) from error
            for family in end_orphans(self.records):
                _log.warning("ended a server that a killed run had left behind: %s", " ".join(family.command)[:200])
            for attempt in range(_PORTS):
                self._port = _free_port(self.host)
                try:
                    self._launch()
                    return
                except _PortTaken:
                    if attempt == _PORTS - 1:
                        raise

    def note_answer(self) -> None:
        """Note that the server has answered; the count of restarts starts at 0 again."""
        self._restarts_without_answer = 0

    def revive(self, base_url: str) -> str:
        """Restart the server if it is dead, wait until it answers, and return its address.

        Raises EngineError when the server has died too often since the last `note_answer`.
        """
        with self._lock:
            if self._is_well():
                return self.base_url
            if self._restarts_without_answer >= self.restarts:
                raise EngineError(
                    self._explain_failure(f"vLLM died {self.restarts + 1} times without answering anything")
                )
            self._restarts_without_answer += 1
            _log.warning("vLLM does not answer (%s); restarting it", self._describe_end())
            self._end()
            self._launch()
        return self.base_url

    def close(self) -> None:
        """End the server and wait until all its processes are gone. Safe to call twice."""
        self._closed.set()
        with self._lock:
            self._end()

    def _launch(self) -> None:
        self._check_open()
        if self.gpu_share:
            # the model before, or one of a run that was killed, may still be giving its memory back
            names = [gpu.name for gpu in list_gpus()[: self.gpus]]
            await_memory(names, lambda gpu: self.gpu_share * gpu.total, _LESS_SHARE, self._check_open)
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
        while not self._is_answering():
            self._check_open()
            if self._has_ended():
                if "address already in use" in self._read_log():
                    raise _PortTaken(self._explain_failure("vLLM did not start"))
                raise EngineError(self._explain_failure(f"vLLM did not start ({self._describe_end()})"))
            now = time.monotonic()
            if now - began > self.start_seconds:
                late = f"vLLM was not ready within {self.start_seconds:g} s"
                raise EngineError(f"{late}; its last message: {find_last_line(self._read_log())} (log: {self.log})")
            if now - reported >= _REPORT_SECONDS:
                reported = now
                _log.info("vLLM is starting, %.0f s: %s", now - began, find_last_line(self._read_log()))
            time.sleep(_POLL_SECONDS)
        _log.info("vLLM is ready after %.0f s", time.monotonic() - began)

    def _is_well(self) -> bool:
        """Return whether it answers twice within some seconds: a dying server answers for another second."""
        give_up_at = time.monotonic() + _SILENT_SECONDS
        while not self._has_ended() and time.monotonic() < give_up_at:
            self._check_open()
            if self._is_answering():
                if time.monotonic() - self._sure_at < _SURE_SECONDS:
                    return True
                time.sleep(_SURE_SECONDS / 2)
                if self._is_answering():
                    self._sure_at = time.monotonic()
                    return True
            time.sleep(_POLL_SECONDS)
        return False

    def _is_answering(self) -> bool:
        """Return whether the server on the port is healthy and is ours: another program may have taken the port."""
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

    def _has_ended(self) -> bool:
        return self._guard is None or self._guard.poll() is not None

    def _describe_end(self) -> str:
        code = None if self._guard is None else self._guard.poll()
        if code is None:
            return "it is running"
        # the guard returns a negative code, which means a signal, as an unsigned byte
        return f"killed by signal {256 - code}" if 191 < code < 256 else f"exit code {code}"

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise EngineError("the engine was closed")

    def _read_log(self) -> str:
        """Return the log since the last start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", errors="replace")

    def _explain_failure(self, what: str) -> str:
        return f"{what}: {self.explain(self._read_log())} (log: {self.log})"

    def _end(self) -> None:
        running, self._guard = self._guard, None
        if running is not None:
            end_guarded(running, self._record)


class _PortTaken(EngineError):
    """Another program has taken the port."""


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
