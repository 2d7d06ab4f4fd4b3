"""A run on a machine with two GPUs, as far as nvidia-smi is concerned: folds are trained in child processes."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.students.settings import StudentSpec
from tests.conftest import PrefectServer
from tests.fake_gpus import plug_in_gpus
from tests.flows.small_run import small_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FOLDS = 4
_RUN = """
import pickle
import sys
from pathlib import Path
from flows.service.server import apply_environment
apply_environment()
from flows.distill import distill
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    distill(pickle.loads((folder / "config").read_bytes()))
    loaded = [name for name in ("torch", "transformers", "trl") if name in sys.modules]
    (folder / "loaded").write_text(" ".join(loaded))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder. Two GPUs are listed, and each child notes the ones that it sees, when it loads trl."""
    plug_in_gpus(tmp_path, 2, monkeypatch)
    hook = tmp_path / "hook"
    hook.mkdir()
    # sitecustomize runs in each new Python; trl is loaded only by trainings
    (hook / "sitecustomize.py").write_text(_NOTE_DEVICES.format(folder=str(tmp_path)))
    monkeypatch.setenv("PYTHONPATH", f"{hook}:{os.environ.get('PYTHONPATH', os.getcwd())}")
    config = small_config(tmp_path / "run", items=40)
    assert isinstance(config.student, StudentSpec)
    student = config.student.model_copy(update={"folds": FOLDS, "epochs": 3, "checkpoint_seconds": 0.2})
    config = config.model_copy(update={"student": student, "generator": None, "unlabelled": None})
    (tmp_path / "run" / "config").write_bytes(pickle.dumps(config))
    return tmp_path / "run"


_NOTE_DEVICES = """
import importlib.abc, os, sys
from pathlib import Path

class Note(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "trl.trainer":
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            (Path({folder!r}) / f"{{os.getpid()}}.device").write_text(str(seen))
        return None

sys.meta_path.insert(0, Note())
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen([sys.executable, "-c", _RUN, str(folder)], stdout=log, stderr=log, start_new_session=True)


def read_students(folder: Path) -> list[dict[str, Any]]:
    files = folder.glob("run/correction/students/*/student.json")
    return sorted((json.loads(f.read_text("utf-8")) for f in files), key=lambda facts: facts["fold"])


def list_checkpointed(folder: Path) -> int:
    return len({f.parents[2] for f in folder.glob("run/correction/students/.*.part/trainer/checkpoint-*/files.json")})


def list_trainings(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [c for c in children if "spawn_main" in " ".join(c.cmdline())]


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while not happened():
        assert process.poll() is None, "the moment was missed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_fold_sees_its_gpu_and_resumes_when_its_process_is_killed(
    prefect_server: PrefectServer, folder: Path
) -> None:
    process = start(folder)
    wait_for(lambda: list_checkpointed(folder) == 2, process)
    trainings = list_trainings(process)
    assert len(trainings) == 2  # one per GPU
    for training in trainings:
        training.kill()
    assert process.wait(timeout=900) == 0, (folder / "log.txt").read_text("utf-8")[-3000:]

    students = read_students(folder)
    assert [s["fold"] for s in students] == list(range(FOLDS))
    assert sum(s["resumed_from"] is not None for s in students) == 2
    assert all(s["losses"] and s["waiting_share"] < 1 for s in students)
    seen = [file.read_text() for file in folder.parent.glob("*.device")]
    assert len(seen) == FOLDS + 2  # a process per fold, and one more for each that was killed
    assert set(seen) == {"0", "1"}
    assert (folder / "loaded").read_text() == ""  # models are loaded by children only
    log = (folder / "log.txt").read_text("utf-8")
    assert "killed by signal 9" in log and "% of them waiting for images" in log


def test_a_killed_run_leaves_no_training_and_its_rerun_resumes(prefect_server: PrefectServer, folder: Path) -> None:
    process = start(folder)
    wait_for(lambda: list_checkpointed(folder) == 2, process)
    descendants = psutil.Process(process.pid).children(recursive=True)
    assert len(list_trainings(process)) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(descendants, timeout=20)[1] == []
    assert start(folder).wait(timeout=900) == 0, (folder / "log.txt").read_text("utf-8")[-3000:]
    students = read_students(folder)
    assert len(students) == FOLDS
    assert sum(s["resumed_from"] is not None for s in students) == 2
