"""kill -9 while a server is asked: the next run repeats at most the requests in flight and one second of answers."""

import multiprocessing
import random
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tasks.models.ledger.ledger import Ledger
from tasks.records import Outcome
from tests.stub_server import Options, Running, running
from tests.tasks.models.engines.asking_run import run
from tests.tasks.models.engines.asking_stub import make_requests

KILLS, ITEMS, CONCURRENCY = 20, 10_000, 64


# forked from a process that has imported everything, a run starts at once instead of after ten seconds
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.tasks.models.engines.asking_run"])


def start(folder: Path, stub: Running) -> ForkServerProcess:
    process = FORKS.Process(target=run, args=(folder, stub.url, ITEMS, CONCURRENCY))
    process.start()
    return process


def kill_at(process: ForkServerProcess, stub: Running, items: int) -> dict[str, Any]:
    """Kill the run when the server has received `items`; return its figures once nothing is in flight."""
    deadline = time.monotonic() + 120
    while stub.seen() < items:
        assert process.is_alive(), "ended before the moment to kill it"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    while (figures := stub.stats())["in_flight_now"]:
        time.sleep(0.01)
    return figures


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_lose_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each run repeats at most what was in flight when the one before was killed, and what it had just received."""
    moments = sorted(random.Random(3).sample(range(1, ITEMS), KILLS))
    # 64 in flight at 0.26 s on average are 245 per second: 40 s of answering, and some seconds per start
    with running(Options(median_seconds=0.25, sigma=0.3)) as stub:
        again: list[int] = []
        bounds: list[int] = []
        seen = 0
        for moment in moments:
            # at least one new item per run: by then what the run before lost has been asked again, or is in flight
            figures = kill_at(start(tmp_path, stub), stub, max(moment, seen + 1))
            seen = figures["items"]
            again.append(figures["again_requests"])
            bounds.append(CONCURRENCY + figures["answered_in_last_second"])
            stub.mark()
        last = start(tmp_path, stub)
        last.join(300)
        assert last.exitcode == 0
        again.append(stub.stats()["again_requests"])
        received = stub.stats()["received"]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        kept = ledger.get(request.key for request in make_requests(ITEMS))
        assert len(ledger) == len(kept) == ITEMS
    assert {answer.outcome for answer in kept.values()} == {Outcome.OK}
    lines = [f"{a} of at most {b}" for a, b in zip(again[1:], bounds, strict=True)]
    with capsys.disabled():
        print(f"\n{KILLS} kills, {ITEMS} items, {received} requests; asked again after each: {', '.join(lines)}")
    assert received == ITEMS + sum(again)
    assert all(a <= b for a, b in zip(again[1:], bounds, strict=True)), lines
