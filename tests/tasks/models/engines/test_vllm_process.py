"""The process around vLLM, with a small server in vLLM's place: how it is started, restarted and ended."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tasks.errors import EngineError
from tasks.models.engines import processes
from tasks.models.engines.vllm.log import find_last_line
from tasks.models.engines.vllm.process import ServerProcess
from tests.fake_gpus import plug_in_gpus

ROOT = Path(__file__).resolve().parents[4]
SMALL = Path(__file__).with_name("small_server.py")
NAME = "small@1"


def make_process(folder: Path, *extra: str, name: str = NAME, start_seconds: float = 30.0) -> ServerProcess:
    """Return a process for the small server, not started; its files are under `folder`."""
    pids = folder / "pids"
    pids.mkdir(parents=True, exist_ok=True)
    small = [sys.executable, str(SMALL), "--name", name, "--pids", str(pids), *extra]
    return ServerProcess(
        lambda port: [*small, "--port", str(port)],
        NAME,
        environment=dict(os.environ),
        log=folder / "logs" / "small.log",
        start_seconds=start_seconds,
        explain=lambda log: f"it wrote: {find_last_line(log)}",
        records=folder / "records",
        restarts=2,
    )


def list_servers(folder: Path) -> list[tuple[int, int]]:
    """Return the pids of each server and its child, in order of their start."""
    files = sorted((folder / "pids").iterdir(), key=lambda f: f.stat().st_mtime_ns)
    return [(int(f.stem), int(f.suffix[1:])) for f in files]


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    process = make_process(tmp_path)
    process.start()
    yield process
    process.close()


@pytest.mark.parametrize("child", ["--stubborn", "--escape"])
def test_closing_ends_the_server_and_its_child(tmp_path: Path, child: str):
    process = make_process(tmp_path, child)
    process.start()
    [(server, its_child)] = list_servers(tmp_path)
    assert is_running(server) and is_running(its_child)
    assert len(list((tmp_path / "records").iterdir())) == 1
    process.close()
    # without delay, since the next model needs the memory
    assert not is_running(server) and not is_running(its_child)
    assert list((tmp_path / "records").iterdir()) == []
    process.close()
    with pytest.raises(EngineError, match="closed"):
        process.revive(process.base_url)


def test_it_waits_for_the_memory_of_its_own_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = plug_in_gpus(tmp_path, 3, monkeypatch)
    gpus.free |= {1: 20_000, 2: 0}
    gpus.write()
    process = replace(make_process(tmp_path), gpus=2, gpu_share=0.92)
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(process.start)
        time.sleep(1.5)
        assert list(tmp_path.glob("pids/*")) == []
        gpus.free[1] = 81_000
        gpus.write()
        starting.result()
    assert len(list_servers(tmp_path)) == 1
    process.close()


def test_closing_ends_the_wait_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = plug_in_gpus(tmp_path, 1, monkeypatch)
    gpus.free[0] = 0
    gpus.write()
    process = replace(make_process(tmp_path), gpus=1, gpu_share=0.5)
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(process.start)
        time.sleep(0.3)
        process.close()
        with pytest.raises(EngineError, match="closed"):
            starting.result(timeout=10)


OWNER = """
    import sys, time
    from pathlib import Path
    from tests.tasks.models.engines.test_vllm_process import make_process
    process = make_process(Path(sys.argv[1]))
    process.start()
    print(process._guard.pid, flush=True)
    {then}
"""


def start_owner(folder: Path, then: str = "time.sleep(600)") -> tuple[subprocess.Popen[bytes], int]:
    """Start another process that starts a server; return it and the pid of its guard."""
    code = textwrap.dedent(OWNER).format(then=then)
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_leaves_no_process(tmp_path: Path, number: signal.Signals):
    killed, its_guard = start_owner(tmp_path)
    [(server, child)] = list_servers(tmp_path)
    assert is_running(server) and is_running(child)
    killed.send_signal(number)
    killed.wait()
    assert wait_for(lambda: not any(map(is_running, (server, child, its_guard))))
    assert list((tmp_path / "records").iterdir()) == []


@pytest.mark.parametrize("then", ["raise RuntimeError('boom')", "sys.exit(3)"])
def test_an_owner_that_forgets_to_close_leaves_no_process(tmp_path: Path, then: str):
    ended, its_guard = start_owner(tmp_path, then)
    [(server, child)] = list_servers(tmp_path)
    ended.wait()
    assert wait_for(lambda: not any(map(is_running, (server, child, its_guard))))


def test_the_next_start_ends_only_the_orphan(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    elsewhere = tmp_path / "else"
    neighbour, _ = start_owner(elsewhere)  # a run that continues, recorded in the same folder
    [(other_server, other_child)] = list_servers(elsewhere)
    (tmp_path / "records").mkdir()
    [its_record] = (elsewhere / "records").iterdir()
    its_record.rename(tmp_path / "records" / its_record.name)

    killed, its_guard = start_owner(tmp_path)
    [(server, child)] = list_servers(tmp_path)
    os.kill(its_guard, signal.SIGKILL)
    killed.kill()
    killed.wait()
    time.sleep(1.0)
    assert is_running(server) and is_running(child)  # a real orphan

    process = make_process(tmp_path)
    with caplog.at_level(logging.WARNING, "labelstill"):
        process.start()
    try:
        assert not is_running(server) and not is_running(child)
        assert "killed run" in caplog.text
        assert is_running(other_server) and is_running(other_child)
    finally:
        process.close()
        neighbour.kill()
        neighbour.wait()
    assert wait_for(lambda: not is_running(other_server) and not is_running(other_child))


def test_a_process_with_an_orphans_number_is_left_alone(tmp_path: Path):
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        mine = psutil.Process().create_time()
        family = processes.Family(
            leader=bystander.pid,
            created=psutil.Process(bystander.pid).create_time() - 3600,
            owner=os.getpid(),
            owner_created=mine - 3600,  # our pid, but created earlier: that owner has ended
            machine=processes.identify_machine(),
            command=("vllm",),
        )
        write_record(tmp_path / "old.json", family)
        assert processes.end_orphans(tmp_path) == []
        assert not (tmp_path / "old.json").exists()
        assert bystander.poll() is None
        # a record of another machine in a shared home folder: its pids mean nothing here
        there = replace(family, created=family.created + 3600, machine="there")
        write_record(tmp_path / "there.json", there)
        assert processes.end_orphans(tmp_path) == []
        assert (tmp_path / "there.json").exists()
        assert bystander.poll() is None
        # with a matching record it is ended
        write_record(tmp_path / "right.json", replace(there, machine=family.machine))
        assert [f.leader for f in processes.end_orphans(tmp_path)] == [bystander.pid]
        assert wait_for(lambda: bystander.poll() is not None)
    finally:
        bystander.kill()
        bystander.wait()


def write_record(file: Path, family: processes.Family) -> None:
    file.write_text(json.dumps({**vars(family), "command": list(family.command)}))


def test_a_dead_server_comes_back_at_the_same_address(tmp_path: Path, process: ServerProcess):
    address = process.base_url
    process.revive(address)
    assert len(list_servers(tmp_path)) == 1  # it answers, so nothing was done
    [(server, child)] = list_servers(tmp_path)
    os.kill(server, signal.SIGKILL)
    with ThreadPoolExecutor(8) as threads:  # all requests in flight notice it at the same time
        list(threads.map(process.revive, [address] * 8))
    assert process.base_url == address
    assert len(list_servers(tmp_path)) == 2
    assert is_running(list_servers(tmp_path)[1][0])
    assert not is_running(child)


def test_a_server_that_dies_of_every_request_is_given_up(tmp_path: Path, process: ServerProcess):
    for restart in range(3):
        os.kill(list_servers(tmp_path)[-1][0], signal.SIGKILL)
        process.revive(process.base_url)
        if restart == 0:
            process.note_answer()  # this restart was followed by an answer
    os.kill(list_servers(tmp_path)[-1][0], signal.SIGKILL)
    with pytest.raises(EngineError, match="without answering anything: it wrote: Loading the model") as error:
        process.revive(process.base_url)
    assert str(tmp_path / "logs" / "small.log") in str(error.value)


@pytest.mark.parametrize(
    "extra, name, message",
    [
        (["--fail", "3", "--say", "no memory"], NAME, r"did not start \(exit code 3\): it wrote: no memory"),
        (["--slow", "60"], NAME, r"not ready within 2 s; its last message: Loading the model"),
        ([], "another", r"not ready within"),  # another program's server has taken the port
    ],
)
def test_a_server_that_does_not_start_is_explained(tmp_path: Path, extra: list[str], name: str, message: str):
    process = make_process(
        tmp_path, *extra, name=name, start_seconds=2 if "not ready" in message or name != NAME else 30
    )
    with pytest.raises(EngineError, match=message) as error:
        process.start()
    assert "small.log" in str(error.value)
    [(server, child)] = list_servers(tmp_path)
    assert not is_running(server) and not is_running(child)
    assert list((tmp_path / "records").iterdir()) == []


def test_closing_interrupts_a_start(tmp_path: Path):
    process = make_process(tmp_path, "--slow", "60")
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(process.start)
        assert wait_for(lambda: len(list_servers(tmp_path)) == 1)
        process.close()
        with pytest.raises(EngineError, match="closed"):
            starting.result(timeout=10)
    assert not any(is_running(pid) for pid in list_servers(tmp_path)[0])
