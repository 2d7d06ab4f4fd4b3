import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from tasks.errors import ConfigError, EngineError
from tasks.students import worker_pool
from tasks.students.lora_memory import Memory
from tasks.students.loss_curves import Progress
from tasks.students.worker_pool import TrainingPool
from tests.fake_gpus import plug_in_gpus

Steps = list[tuple[int, int, float]]
GIB = 1 << 30


def count_to(last: int, progress: Progress) -> None:
    for step in range(1, last + 1):
        progress(step, last, 0.5)
    if last == 13:
        raise ValueError("thirteen steps are too many")


def note_devices(folder: Path, name: str, progress: Progress) -> None:
    """Write which GPUs this process sees, and its pid; then wait, so that both places are used."""
    (folder / f"{name}.device").write_text(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}")
    wait_until(lambda: len(list(folder.glob("*.device"))) >= 2)


def work(folder: Path, progress: Progress) -> None:
    (folder / f"{os.getpid()}.works").touch()
    time.sleep(300)


def die_at_first(folder: Path, progress: Progress) -> None:
    """A training that notes its steps as a checkpoint would, and is killed after the second step, once."""
    done = folder / "done"
    start = int(done.read_text()) if done.exists() else 0
    for step in range(start + 1, 5):
        progress(step, 4, 0.5)
        done.write_text(str(step))
        if start == 0 and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def at_work(folder: Path, count: int) -> list[psutil.Process]:
    """The pool's processes, once all of them are at work."""
    wait_until(lambda: len(list(folder.glob("*.works"))) >= count)
    return [psutil.Process(int(file.stem)) for file in folder.glob("*.works")]


def ignore(*_: object) -> None:
    pass


def test_each_training_reports_its_own_progress() -> None:
    steps: dict[int, Steps] = {3: [], 5: []}

    def report(last: int) -> Progress:
        return lambda done, total, loss: steps[last].append((done, total, loss))

    with ThreadPoolExecutor() as threads, TrainingPool(2, 2) as pool:
        list(threads.map(lambda last: pool.train(partial(count_to, last), report(last)), steps))
    assert steps[3] == [(1, 3, 0.5), (2, 3, 0.5), (3, 3, 0.5)]
    assert steps[5][-1] == (5, 5, 0.5)


def test_what_a_training_raises_is_raised_here() -> None:
    with TrainingPool(1, 1) as pool, pytest.raises(ValueError, match="thirteen steps"):
        pool.train(partial(count_to, 13), ignore)


def test_each_childs_environment_has_exactly_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in_gpus(tmp_path, 4, monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    with ThreadPoolExecutor() as threads, TrainingPool(1, 4) as pool:
        assert pool.size == 2
        runs = [threads.submit(pool.train, partial(note_devices, tmp_path, str(i)), ignore) for i in range(4)]
        for run in runs:
            run.result()
    seen = [file.read_text().split() for file in sorted(tmp_path.glob("*.device"))]
    assert sorted(device for device, _ in seen) == ["1", "1", "3", "3"]
    assert len({pid for _, pid in seen}) == 4  # a GPU's memory is free only when its process has ended
    assert not any(psutil.pid_exists(int(pid)) for _, pid in seen)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,1"


def test_without_gpus_one_process_trains_several_students(tmp_path: Path) -> None:
    (tmp_path / "none.device").touch()
    with TrainingPool(1, 3) as pool:
        assert pool.size == 1
        for name in "ab":
            pool.train(partial(note_devices, tmp_path, name), ignore)
    assert (tmp_path / "a.device").read_text() == (tmp_path / "b.device").read_text()


def test_a_training_whose_process_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    steps: Steps = []
    with TrainingPool(1, 1) as pool:
        pool.train(partial(die_at_first, tmp_path), lambda *step: steps.append(step))
    assert [done for done, _, _ in steps] == [1, 2, 3, 4]


def test_a_gpu_that_is_too_small_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in_gpus(tmp_path, 1, monkeypatch)
    large = Memory(weights=70 * GIB, adapter=GIB, activations=20 * GIB)
    said = r"about 92 GiB .*weights 70\.0.*GPU, 0, has 80 GiB; lower `student\.batch_size`"
    with pytest.raises(ConfigError, match=said):
        TrainingPool(1, 1, lambda: large)


def test_a_gpu_in_use_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = plug_in_gpus(tmp_path, 1, monkeypatch)
    gpus.free[0] = 10_000
    gpus.write("GPU-0a, 4711, VLLM::EngineCore, 71000\n")
    monkeypatch.setattr(worker_pool, "await_memory", partial(worker_pool.await_memory, seconds=0))
    memory = Memory(weights=20 * GIB, adapter=0, activations=0)
    with TrainingPool(1, 1, lambda: memory) as pool, pytest.raises(EngineError, match="process 4711"):
        pool.train(partial(count_to, 1), ignore)


def test_an_exception_ends_what_is_at_work(tmp_path: Path) -> None:
    raised = 0.0
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with ThreadPoolExecutor(2) as threads, TrainingPool(2, 4) as pool:
            futures = [threads.submit(pool.train, partial(work, tmp_path), ignore) for _ in range(4)]
            processes = at_work(tmp_path, 2)
            raised = time.monotonic()
            raise KeyboardInterrupt
    assert time.monotonic() - raised < 60  # of the 300 s that their work takes
    assert not any(process.is_running() for process in processes)
    assert all(isinstance(future.exception(), EngineError) for future in futures)
