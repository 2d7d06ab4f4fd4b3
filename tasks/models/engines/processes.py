"""End whole trees of processes, and start servers and trainers that never outlive us.

Run as a script (``processes.py RECORD OWNER COMMAND…``, which imports nothing of ours) this starts the command in a
session of its own and ends that whole session when the command, or the process that started this guard, is gone,
however it went. A process that is killed cannot clean up, and Linux' parent-death signal reaches direct children only,
and already when the *thread* that started them ends; so it is another process that watches. Should the guard be killed
too, its record is left, and `end_orphans` finds it at the next start.
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
"""How long a server may take to end by itself; vLLM's takes 1 to 5. With what comes after, the processes of a cancelled
run are gone within 10 s."""
_AFTERMATH_SECONDS = 2.0
"""How long what it started may outlast it."""


@dataclass(frozen=True)
class Family:
    """A server's session and who owns it: what a record file holds.

    A pid alone proves nothing, since the system gives it out again: the time of creation must agree.
    """

    leader: int
    """Pid of the server, and so the number of its session."""
    created: float
    """When the leader was created, in seconds since 1970."""
    owner: int
    owner_created: float
    machine: str
    command: tuple[str, ...]


@cache
def this_machine() -> str:
    """Host, boot and, in containers, the numbering of processes: where a pid means what it meant."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux only
        known += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(known)


def is_alive(pid: int, created: float) -> bool:
    """Whether the process with that pid is still the one created then, and no zombie."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def members(family: Family) -> list[psutil.Process]:
    """All living processes of the family: its session, and descendants that opened sessions of their own."""
    if family.machine != this_machine():
        return []
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(family.leader)
        if abs(leader.create_time() - family.created) >= 1:
            return []  # the number was given out again, which it is only once the whole session is gone
        found = {p.pid: p for p in leader.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == family.leader:
                found[process.pid] = process
    return [p for p in found.values() if _runs(p)]


def end_family(family: Family, patience: float = PATIENCE_SECONDS) -> None:
    """End all processes of the family, the leader kindly and first; returns when none is left."""
    known = members(family)
    leaders = [p for p in known if p.pid == family.leader]
    for process in leaders:
        _signal(process, signal.SIGTERM)
    psutil.wait_procs(leaders, timeout=patience)
    while known := [*{*members(family), *(p for p in known if _runs(p))}]:
        end_processes(known, _AFTERMATH_SECONDS)


def end_processes(processes: Iterable[psutil.Process], patience: float) -> bool:
    """Ask processes and all their children to end, and kill those that have not after `patience` seconds.

    Return False when there are none.
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
    """Start `command` with a guard between us and it, which is returned; its output goes to `log`.

    The guard notes the command's processes in `record` and exits with its code (above 191: 256 - signal).
    """
    return subprocess.Popen(
        # -P: the folder of the script holds modules whose names are none of its business
        [sys.executable, "-P", __file__, str(record), str(os.getpid()), *command],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def end_guarded(started: subprocess.Popen[bytes], record: Path) -> None:
    """End what `start_guarded` started, with all its processes; returns when none is left."""
    family = read_record(record)
    started.terminate()
    try:
        started.wait(timeout=PATIENCE_SECONDS + 10)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
    # nothing is left of it unless the guard itself was killed
    if family is not None:
        end_family(family)
    record.unlink(missing_ok=True)


def end_orphans(records: Path) -> list[Family]:
    """End the families recorded under `records` whose owner is gone, and only those; returns them."""
    ended: list[Family] = []
    for file in sorted(records.glob("*.json")):
        family = read_record(file)
        if family is None or family.machine != this_machine() or is_alive(family.owner, family.owner_created):
            continue
        if members(family):
            end_family(family)
            ended.append(family)
        file.unlink(missing_ok=True)
    return ended


def read_record(file: Path) -> Family | None:
    """The family in a record file; None when the file is gone or holds none."""
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


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):  # psutil checks the creation time before it sends
        process.send_signal(number)


class _Asked(Exception):
    """The owner asks for the end."""


def _ask(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Asked


def guard(record: Path, owner: int, command: Sequence[str]) -> int:
    """Run `command` until it ends or process `owner`, our parent, does; returns its exit code (negative: a signal)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ask)
    owner_created = psutil.Process(owner).create_time()
    server = family = None
    try:
        if os.getppid() != owner:
            return 0
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        created = psutil.Process(server.pid).create_time()
        family = Family(server.pid, created, owner, owner_created, this_machine(), tuple(command))
        _write_record(record, family)
        while server.poll() is None and os.getppid() == owner:
            time.sleep(_POLL_SECONDS)
    except _Asked:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if family is not None:
            end_family(family)
        elif server is not None:  # asked to end between two lines
            server.kill()
        record.unlink(missing_ok=True)
    return 0 if server is None else server.wait()


if __name__ == "__main__":
    sys.exit(guard(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]) & 0xFF)
