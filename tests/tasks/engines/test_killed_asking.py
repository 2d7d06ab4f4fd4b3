"""kill -9 while a server is being asked: the next run asks again for no more than a second's worth."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.ledger import Ledger
from tasks.records import Outcome
from tests.stub_server import ROOT, Options, Running, running
from tests.tasks.engines.asking_stub import questions

KILLS, ITEMS, CONCURRENCY = 20, 10_000, 64


def start(folder: Path, stub: Running) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.tasks.engines.asking_run", str(folder), stub.url]
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen([*command, str(ITEMS), str(CONCURRENCY)], cwd=ROOT, stdout=log, stderr=log)


def kill_at(process: subprocess.Popen[bytes], stub: Running, items: int) -> dict[str, Any]:
    """Kill when the server has seen `items` of them; returns its figures once nothing is in flight any more."""
    deadline = time.monotonic() + 120
    while stub.stats()["items"] < items:
        assert process.poll() is None, "ended before the moment to kill it"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while (figures := stub.stats())["in_flight_now"]:
        time.sleep(0.01)
    return figures


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Must show 3."""
    moments = sorted(random.Random(3).sample(range(1, ITEMS), KILLS))
    # 64 in flight at a mean of 0.26 s are 245 a second: 40 s of answering, and some seconds for each start.
    with running(Options(median_seconds=0.25, sigma=0.3)) as stub:
        again: list[int] = []
        bounds: list[int] = []
        seen = 0
        for moment in moments:
            # At least one new item a run: by then all that the run before lost has been asked again, or is in flight.
            figures = kill_at(start(tmp_path, stub), stub, max(moment, seen + 1))
            seen = figures["items"]
            again.append(figures["again"])
            assert figures["again_requests"] == figures["again"], "asked twice within one run"
            bounds.append(CONCURRENCY + figures["answered_in_last_second"])
            stub.mark()
        assert start(tmp_path, stub).wait(timeout=300) == 0
        again.append(stub.stats()["again"])
        received = stub.stats()["received"]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        kept = ledger.get(request.key for request in questions(ITEMS))
        assert len(ledger) == len(kept) == ITEMS
    assert {answer.outcome for answer in kept.values()} == {Outcome.OK}
    lines = [f"{a} of at most {b}" for a, b in zip(again[1:], bounds, strict=True)]
    with capsys.disabled():
        print(f"\n{KILLS} kills, {ITEMS} items, {received} requests; asked again after each: {', '.join(lines)}")
    assert received == ITEMS + sum(again)
    assert all(a <= b for a, b in zip(again[1:], bounds, strict=True)), lines
