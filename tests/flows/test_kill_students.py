"""kill -9 in the middle of a fold: finished students are reused, the interrupted one resumes, corrections are equal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import PrefectServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FOLDS = 5
_RUN = """
import sys
from pathlib import Path
from tests.flows.small_run import small_config
from flows.distill import distill
config = small_config(Path(sys.argv[1]), items=150)
student = config.student.model_copy(update={"folds": 5, "epochs": 2})
distill(config.model_copy(update={"student": student, "generator": None, "unlabelled": None}))
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen([sys.executable, "-c", _RUN, str(folder)], stdout=log, stderr=log, start_new_session=True)


def list_finished_students(folder: Path) -> dict[str, int]:
    """When each finished student was written, by name."""
    return {f.parent.name: f.stat().st_mtime_ns for f in folder.glob("run/correction/students/*/student.json")}


def list_unfinished_students(folder: Path) -> set[str]:
    """Students with a whole checkpoint that are not finished; a finished one's work folder goes a moment later."""
    lists = folder.glob("run/correction/students/.*.part/trainer/checkpoint-*/files.json")
    return {f.parents[2].name.removeprefix(".").removesuffix(".part") for f in lists} - list_finished_students(
        folder
    ).keys()


def read_corrections(folder: Path) -> pd.DataFrame:
    frame = pd.read_parquet(folder / "run/correction/kept.parquet")
    columns = ["sample_id", "given", "predicted", "action", "label", "flagged", "reviewed", "fold", "p_given"]
    return frame[columns].sort_values("sample_id", ignore_index=True)


def test_killed_in_the_third_fold(prefect_server: PrefectServer, tmp_path: Path) -> None:
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    assert start(reference).wait(timeout=900) == 0
    process = start(killed)
    third = killed / "run/correction/students"
    deadline = time.monotonic() + 600
    while len(list_finished_students(killed)) != 2 or not list_unfinished_students(killed):
        assert process.poll() is None and len(list_finished_students(killed)) <= 2, "the moment was missed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = list_finished_students(killed)
    assert len(before) == 2
    assert start(killed).wait(timeout=900) == 0
    after = list_finished_students(killed)
    assert len(after) == FOLDS and before.items() <= after.items()
    facts = [json.loads((third / name / "student.json").read_text()) for name in after]
    resumed = [f["resumed_from"] for f in facts if f["resumed_from"]]
    assert len(resumed) == 1 and resumed[0] >= 1  # the third went on; the fourth and fifth are new
    print(f"third student went on at step {resumed[0]} of {facts[0]['steps']}; fourth and fifth were trained")
    pd.testing.assert_frame_equal(read_corrections(killed), read_corrections(reference), rtol=1e-3)
