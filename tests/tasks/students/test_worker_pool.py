import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from tasks.students.loss_curves import Progress
from tasks.students.worker_pool import training_pool, worker_pool
from tests.conftest import ROOT


def begun(folder: Path) -> None:
    (folder / f"{os.getpid()}.begun").touch()


def work(folder: Path, seconds: float) -> int:
    (folder / f"{os.getpid()}.works").touch()
    time.sleep(seconds)
    return os.getpid()


def at_work(folder: Path, count: int) -> list[psutil.Process]:
    """The pool's processes, once all of them are at work."""
    deadline = time.monotonic() + 60
    while len(found := list(folder.glob("*.works"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [psutil.Process(int(file.stem)) for file in found]


def test_the_work_is_done_in_begun_processes(tmp_path: Path) -> None:
    with worker_pool(1, begun, tmp_path) as pool:
        pid = pool.submit(work, tmp_path, 0).result()
    assert pid != os.getpid()
    assert (tmp_path / f"{pid}.begun").exists()
    assert not psutil.pid_exists(pid)


def test_an_exception_ends_what_is_at_work(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with worker_pool(2, begun, tmp_path) as pool:
            futures = [pool.submit(work, tmp_path, 300) for _ in range(4)]
            processes = at_work(tmp_path, 2)
            raised = time.monotonic()
            raise KeyboardInterrupt
    assert time.monotonic() - raised < 60  # of the 300 s that their work takes
    assert not any(process.is_running() for process in processes)
    assert all(future.done() for future in futures)


_OWNER = """
import sys
from pathlib import Path
from tasks.students.loss_curves import Progress
from tasks.students.worker_pool import training_pool, worker_pool
from tests.tasks.students.test_worker_pool import begun, work
if __name__ == "__main__":
    with worker_pool(1, begun, Path(sys.argv[1])) as pool:
        pool.submit(work, Path(sys.argv[1]), 300).result()
"""


def test_a_killed_owner_leaves_nothing_running(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path)], cwd=ROOT)
    (process,) = at_work(tmp_path, 1)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert psutil.wait_procs([process], timeout=10)[1] == []


def count_to(last: int, progress: Progress) -> None:
    for step in range(1, last + 1):
        progress(step, last, 0.5)
    if last == 13:
        raise ValueError("thirteen steps are too many")


def test_each_training_reports_its_own_progress() -> None:
    steps: dict[int, list[tuple[int, int, float]]] = {3: [], 5: []}

    def report(last: int) -> Progress:
        return lambda done, total, loss: steps[last].append((done, total, loss))

    with training_pool(2) as train, ThreadPoolExecutor() as threads:
        list(threads.map(lambda last: train(partial(count_to, last), report(last)), steps))
        wait_until(lambda: all(len(found) == last for last, found in steps.items()))
    assert steps[3] == [(1, 3, 0.5), (2, 3, 0.5), (3, 3, 0.5)]
    assert steps[5][-1] == (5, 5, 0.5)


def test_what_a_training_raises_is_raised_here() -> None:
    with training_pool(1) as train, pytest.raises(ValueError, match="thirteen steps"):
        train(partial(count_to, 13), lambda *_: None)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
