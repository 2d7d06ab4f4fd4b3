"""Prefect's server is stopped or its database locked in the middle of a stage: the run waits, then completes."""

import sqlite3
import time
from pathlib import Path

import pytest

from tests.flows.bad_days import (
    OwnServer,
    count_lost_items,
    count_reasked_answers,
    find_in_log,
    print_report,
    run_own_server,
    start_light,
    wait_for,
)
from tests.flows.test_kill import count_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STOPPED_SECONDS = 60
LOCKED_SECONDS = 30


def check_none_left_running(server: OwnServer) -> bool:
    return set(server.states()) <= {"Completed", "Crashed", "Failed"}


def test_server_stopped_for_a_minute(tmp_path: Path) -> None:
    with run_own_server(tmp_path / "prefect") as server:
        process = start_light(tmp_path, server.environment)
        wait_for(lambda: count_answers(tmp_path) >= 20, process=process)
        server.stop()
        stopped = count_answers(tmp_path)
        time.sleep(STOPPED_SECONDS)
        assert count_answers(tmp_path) > stopped  # the stage under way needs no server
        server.start()
        assert process.wait(timeout=600) == 0
        assert server.states("distill") == ["Completed"]
        wait_for(lambda: check_none_left_running(server))  # a stage begun again leaves its first attempt
    again, missing = count_reasked_answers(tmp_path), count_lost_items(tmp_path / "run")
    seen = find_in_log(tmp_path, "[Ww]aiting for (it|Prefect's API)") + "; " + find_in_log(tmp_path, "Continuing after")
    print_report("server stopped for 60 s in a stage", seen, again, missing)
    assert (again, missing) == (0, 0)


def test_database_locked_for_half_a_minute(tmp_path: Path) -> None:
    with run_own_server(tmp_path / "prefect") as server:
        process = start_light(tmp_path, server.environment)
        wait_for(lambda: count_answers(tmp_path) >= 20, process=process)
        database = sqlite3.connect(tmp_path / "prefect/prefect.db", timeout=30, isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_SECONDS)
        database.execute("ROLLBACK")
        database.close()
        assert process.wait(timeout=600) == 0
        assert server.states("distill") == ["Completed"]
        wait_for(lambda: check_none_left_running(server))
    again, missing = count_reasked_answers(tmp_path), count_lost_items(tmp_path / "run")
    print_report("server's database locked for 30 s", "states come late in the web UI; Completed", again, missing)
    assert (again, missing) == (0, 0)
