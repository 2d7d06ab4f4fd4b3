"""kill -9 in every stage, and of everything at once: a rerun gives the same result."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pandas as pd
import pytest

from tasks.storage.stage_record import read_record
from tests.conftest import PrefectServer, free_port
from tests.flows.small_run import small_config

STAGES = ("rationales", "pseudo_labels", "correction", "emit")
SLOW = 0.05
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def start(folder: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.flows.small_run", str(folder), str(SLOW)],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log.txt").open("ab"),
        start_new_session=True,
        env=environment,
    )


def count_answers(folder: Path) -> int:
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


def read_decisions(folder: Path) -> dict[str, pd.DataFrame]:
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
    return read_decisions(folder), count_answers(folder)


def wait_for_moment(folder: Path, stage: str) -> Callable[[], bool]:
    """When the run under `folder` is in the middle of `stage`."""
    run = folder / "run"
    return {
        "samples": lambda: (run / "samples").exists(),
        "rationales": lambda: count_answers(folder) >= 20,
        "correction": lambda: any((run / "correction" / "students").glob("*/student.json")),
        "pseudo_labels": lambda: (run / "correction" / "record.json").exists(),
        "emit": lambda: (run / "pseudo_labels" / "record.json").exists(),
    }[stage]


def list_students(folder: Path) -> dict[Path, int]:
    return {f: f.stat().st_mtime_ns for f in (folder / "run/correction/students").glob("*/student.json")}


def check_rerun(
    folder: Path, reference: tuple[dict[str, pd.DataFrame], int], environment: dict[str, str] | None = None
) -> None:
    """Run again, to the end: the same decisions, no student trained and no kept answer asked a second time."""
    before, trained, restarted = count_answers(folder), list_students(folder), time.time()
    assert start(folder, environment).wait(timeout=600) == 0
    expected, total = reference
    for name, frame in read_decisions(folder).items():
        pd.testing.assert_frame_equal(frame, expected[name])
    records = [r for r in map(read_record, (folder / "run" / stage for stage in STAGES)) if r is not None]
    assert len(records) == len(STAGES)
    assert before + sum(r.costs.asked for r in records if r.finished_at >= restarted) == total
    assert trained.items() <= list_students(folder).items()


@pytest.mark.parametrize("stage", [*STAGES, "samples"])
def test_a_run_killed_in_a_stage_continues(
    stage: str, reference: tuple[dict[str, pd.DataFrame], int], tmp_path: Path
) -> None:
    small_config(tmp_path, slow=SLOW)
    kill_when(start(tmp_path), wait_for_moment(tmp_path, stage))
    check_rerun(tmp_path, reference)


def start_server(home: Path, port: int) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_API_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return process, environment
        except httpx.HTTPError:
            time.sleep(0.25)
    raise AssertionError("the server did not start")


def test_a_run_continues_after_everything_was_killed(
    reference: tuple[dict[str, pd.DataFrame], int], tmp_path: Path
) -> None:
    small_config(tmp_path, slow=SLOW)
    server, environment = start_server(tmp_path / "prefect", free_port())
    process = start(tmp_path, environment)
    kill_when(process, wait_for_moment(tmp_path, "pseudo_labels"))
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    server, environment = start_server(tmp_path / "prefect", int(environment["PREFECT_SERVER_API_PORT"]))
    try:
        check_rerun(tmp_path, reference, environment)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
