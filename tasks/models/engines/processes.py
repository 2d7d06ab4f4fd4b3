"""End process trees, and start servers and trainers that never outlive the process that started them.

Run as a script (``processes.py RECORD OWNER COMMAND…``), this module is a guard: it starts the command in a new session
and ends that whole session when either the command or the owner has ended, for whatever reason. A separate process has
to watch, because a killed process cannot clean up. Linux's parent-death signal would not do: it reaches only direct
children and is sent as soon as the *thread* that started them ends. If the guard is killed too, its record remains, and
`end_orphans` finds it at the next start. The script imports nothing of labelstill, so that it starts quickly.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

_POLL_SECONDS = 0.3
PATIENCE_SECONDS = 6.0
"""Time that a server gets to end by itself; vLLM takes 1 to 5 s. A cancelled run's processes are gone within 10 s."""
_AFTERMATH_SECONDS = 2.0
"""Time that the processes started by the server get to end after it."""


@dataclass(frozen=True)
class Family:
    """The processes of a server's session, and their owner; the content of a record file.

    The system reuses pids, so a process is identified by its pid and its creation time together.
    """

    leader: int
    """Pid of the server, which is also the number of its session."""
    created: float
    """Creation time of the leader, in seconds since 1970."""
    owner: int
    """Pid of the process that started the server."""
    owner_created: float
    machine: str
    command: tuple[str, ...]


@cache
def identify_machine() -> str:
    """Return a text that is unique to this host, boot and process namespace; a pid has a meaning only within them."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux only
        known += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(known)


def is_alive(pid: int, created: float) -> bool:
    """Return whether the process that has this pid was created at `created` and is not a zombie."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def find_members(family: Family) -> list[psutil.Process]:
    """Return the family's living processes: those of its session, and descendants that opened sessions of their own."""
    if family.machine != identify_machine():
        return []
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(family.leader)
        if abs(leader.create_time() - family.created) >= 1:
            return []  # the pid was reused, which happens only after the whole session has ended
        found = {p.pid: p for p in leader.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == family.leader:
                found[process.pid] = process
    return [p for p in found.values() if _is_running(p)]


def end_family(family: Family, patience: float = PATIENCE_SECONDS) -> None:
    """End all processes of the family and wait until none is left; the leader gets SIGTERM first."""
    known = find_members(family)
    leaders = [p for p in known if p.pid == family.leader]
    for process in leaders:
        _signal(process, signal.SIGTERM)
    psutil.wait_procs(leaders, timeout=patience)
    while known := [*{*find_members(family), *(p for p in known if _is_running(p))}]:
        end_processes(known, _AFTERMATH_SECONDS)


def end_processes(processes: Iterable[psutil.Process], patience: float) -> bool:
    """Send SIGTERM to processes and all their descendants; kill those that still run after `patience` seconds.

    Return whether there were any processes.
    """
    trees: set[psutil.Process] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            trees |= {process, *process.children(recursive=True)}
    for process in trees:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(trees, timeout=patience)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)
    return bool(trees)


def start_guarded(
    command: Sequence[str], record: Path, environment: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a guard that runs `command`, and return the guard's process; the command's output goes to `log`.

    The guard writes `record` and exits with the command's exit code (above 191: 256 minus the signal's number).
    """
    return subprocess.Popen(
        # -P: modules in the script's folder must not replace others
        [sys.executable, "-P", __file__, str(record), str(os.getpid()), *command],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def end_guarded(started: subprocess.Popen[bytes], record: Path) -> None:
    """End a command that `start_guarded` started, with all its processes, and wait until none is left."""
    family = read_record(record)
    started.terminate()
    try:
        started.wait(timeout=PATIENCE_SECONDS + 10)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
    # processes are left only if the guard was killed
    if family is not None:
        end_family(family)
    record.unlink(missing_ok=True)


def end_orphans(records: Path) -> list[Family]:
    """End each recorded family whose owner has ended; return the families that still had processes."""
    ended: list[Family] = []
    for file in sorted(records.glob("*.json")):
        family = read_record(file)
        if family is None or family.machine != identify_machine() or is_alive(family.owner, family.owner_created):
            continue
        if find_members(family):
            end_family(family)
            ended.append(family)
        file.unlink(missing_ok=True)
    return ended


def read_record(file: Path) -> Family | None:
    """Return the family that a record file describes; None when the file is missing or invalid."""
    try:
        noted: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        noted["command"] = tuple(noted["command"])
        return Family(**noted)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(file: Path, family: Family) -> None:
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(family), ensure_ascii=False), encoding="utf-8")
    temporary.replace(file)


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):  # psutil compares the creation time first
        process.send_signal(number)


class _EndRequested(Exception):
    """The owner has asked the guard to end."""


def _request_end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _EndRequested


def guard(record: Path, owner: int, command: Sequence[str]) -> int:
    """Run `command` until it or our parent process `owner` ends; return its exit code (negative: a signal's number)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _request_end)
    owner_created = psutil.Process(owner).create_time()
    server = family = None
    try:
        if os.getppid() != owner:
            return 0
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        created = psutil.Process(server.pid).create_time()
        family = Family(server.pid, created, owner, owner_created, identify_machine(), tuple(command))
        _write_record(record, family)
        while server.poll() is None and os.getppid() == owner:
            time.sleep(_POLL_SECONDS)
    except _EndRequested:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if family is not None:
            end_family(family)
        elif server is not None:  # SIGTERM came between two lines
            server.kill()
        record.unlink(missing_ok=True)
    return 0 if server is None else server.wait()


if __name__ == "__main__":
    sys.exit(guard(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]) & 0xFF)
