"""kill -9 at every stage, and of everything at once: the rerun ends as if nothing had happened."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import PrefectServer
from tests.flows.small_run import small_config

STAGES = ("rationales", "pseudo_labels", "correction", "emit")
SLOW = 0.05
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.flows.small_run", str(folder), str(SLOW)],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log.txt").open("ab"),
        start_new_session=True,
    )


def answers(folder: Path) -> int:
    ledger = folder / "ledger.sqlite"
    if not ledger.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=30) as connection:
            return connection.execute("select count(*) from answers").fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # opened between the file's creation and its table


def kill_when(process: subprocess.Popen[bytes], moment: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not moment():
        assert process.poll() is None, "ended before the moment to kill it"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def decisions(folder: Path) -> dict[str, pd.DataFrame]:
    """What the run decided, without what differs from run to run (paths of the folder)."""
    frames: dict[str, pd.DataFrame] = {}
    for stage in STAGES:
        frame = pd.read_parquet(folder / "run" / stage / "kept.parquet")
        keep = [c for c in frame.columns if c in {"sample_id", "label", "action", "reason", "origin", "verdict"}]
        frames[stage] = frame[keep].sort_values("sample_id", ignore_index=True)
    return frames


@pytest.fixture(scope="module")
def reference(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, pd.DataFrame], int]:
    folder = tmp_path_factory.mktemp("reference")
    small_config(folder, slow=SLOW)
    assert start(folder).wait(timeout=600) == 0
    return decisions(folder), answers(folder)


@pytest.mark.parametrize("stage", [*STAGES, "samples"])
def test_killed_in_a_stage_goes_on(stage: str, reference: tuple[dict[str, pd.DataFrame], int], tmp_path: Path) -> None:
    run = tmp_path / "run"
    small_config(tmp_path, slow=SLOW)
    moments: dict[str, Callable[[], bool]] = {
        "samples": lambda: (run / "samples").exists(),
        "rationales": lambda: answers(tmp_path) >= 20,
        "pseudo_labels": lambda: (run / "rationales" / "record.json").exists() and answers(tmp_path) >= 80,
        "correction": lambda: any((run / "correction" / "students").glob("*/student.json")),
        "emit": lambda: (run / "correction" / "record.json").exists(),
    }
    process = start(tmp_path)
    kill_when(process, moments[stage])
    before, students = answers(tmp_path), set((run / "correction" / "students").glob("*/student.json"))
    stamps = {file: file.stat().st_mtime_ns for file in students}
    assert start(tmp_path).wait(timeout=600) == 0
    expected, total = reference
    for name, frame in decisions(tmp_path).items():
        pd.testing.assert_frame_equal(frame, expected[name])
    assert answers(tmp_path) == total, "an answer was lost or asked twice under another key"
    assert {file: file.stat().st_mtime_ns for file in students} == stamps, "a finished student was trained again"
    if stage in ("rationales", "pseudo_labels"):
        # a shard is 20 items; the ledger is flushed each second: what was finished is there before the rerun
        assert before >= 20
