"""Python work in a child process."""

import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tasks.errors import ConfigError, EngineError
from tasks.models.engines.child import Child, ChildDied, Report, run_in_child
from tests.conftest import ROOT


def report_twice(value: object, report: Report) -> None:
    logging.getLogger("labelstill").warning("at work on %s", value)
    report(value, os.getpid())
    report(os.environ.get("PLACE"), os.getpid())


def fail(error: Exception, report: Report) -> None:
    raise error


class Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def fail_badly(report: Report) -> None:
    raise Unpicklable("a", "b")


def work_long(report: Report) -> None:
    report(os.getpid())
    time.sleep(300)


def kill_itself(report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_child_does_one_work_after_another_and_its_reports_and_log_arrive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    child = Child({"PLACE": "here"})
    first = list(child.stream(partial(report_twice, "a")))
    second = list(child.stream(partial(report_twice, "b")))
    pid = first[0][1]
    child.close()
    assert [r[0] for r in first + second] == ["a", "here", "b", "here"]
    assert {r[1] for r in first + second} == {pid} != {os.getpid()}
    assert "PLACE" not in os.environ
    assert not psutil.pid_exists(pid)
    assert [r.getMessage() for r in caplog.records] == ["at work on a", "at work on b"]


def test_errors_arrive_as_they_are_with_the_childs_traceback() -> None:
    child = Child()
    with pytest.raises(ConfigError, match="set it") as caught:
        list(child.stream(partial(fail, ConfigError("set it"))))
    assert "in fail" in caught.value.__notes__[0]
    with pytest.raises(EngineError, match="Unpicklable: ab"):
        list(child.stream(fail_badly))
    assert len(list(child.stream(partial(report_twice, "after")))) == 2
    child.close()


def test_a_child_that_dies_says_how_and_is_replaced() -> None:
    child = Child()
    with pytest.raises(ChildDied, match="killed by signal 9"):
        list(child.stream(kill_itself))
    assert len(list(child.stream(partial(report_twice, "again")))) == 2
    child.close()
    with pytest.raises(EngineError, match="closed"):
        list(child.stream(kill_itself))


def test_work_that_is_given_up_is_ended() -> None:
    child = Child()
    stream = child.stream(work_long)
    ((pid,),) = [next(stream)]
    stream.close()
    assert not psutil.pid_exists(pid)


def test_a_result_comes_back() -> None:
    assert run_in_child(os.getpid) != os.getpid()


_OWNER = """
from tasks.models.engines.child import Child
from tests.tasks.models.engines.test_child import work_long
if __name__ == "__main__":
    for (pid,) in Child().stream(work_long):
        print(pid, flush=True)
"""


def test_a_killed_owner_leaves_nothing_running(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    process = psutil.Process(int(owner.stdout.readline()))
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert psutil.wait_procs([process], timeout=10)[1] == []
