"""kill -9 while a batch API is used: no question is lost, and none is accepted twice, whatever the provider does."""

import multiprocessing
import random
from pathlib import Path

import pytest

from tasks.models.ledger.ledger import Ledger
from tasks.records import Outcome
from tests.batch_stub import BatchOptions, RunningBatchStub, running
from tests.tasks.models.engines.asking_stub import make_requests
from tests.tasks.models.engines.batch_run import run

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.tasks.models.engines.batch_run"])

BAD = BatchOptions(
    lose=0.03, double=0.05, damage=0.02, foreign=0.02, expire=0.2, cancel=0.1, fail_half=0.2, spare_later=True,
    rate_limit=0.05, lose_reply=0.15, queue_tokens=300_000, looks=2, seed=5,
)  # fmt: skip
"""Everything goes wrong, but never with a question that is sent for the third time."""


def take_look(folder: Path, stub: RunningBatchStub, count: int, per_file: int, draw: random.Random | None) -> int:
    """Run once and return the exit code. With `draw`, the run is killed at a call or a moment that it draws.

    Both are early, and with few questions it is always a call: they would be answered before enough kills.
    """
    few = count < 1_000
    process = FORKS.Process(target=run, args=(folder, stub.url, count, per_file))
    process.start()
    assert process.pid is not None
    if draw is not None and (few or draw.random() < 0.7):
        stub.kill_at(process.pid, draw.randint(1, 6 if few else 12), after=draw.random() < 0.6)
    elif draw is not None:
        process.join(draw.uniform(0.1, 1.0))
        process.kill()
    process.join(300)
    stub.kill_at(0, 0, after=False)  # its number may become that of another process
    assert process.exitcode in (0, 5, -9), process.exitcode
    return process.exitcode


def kill_often(folder: Path, count: int, per_file: int, kills: int) -> str:
    """Ask `count` questions with so many kills, then to the end; check what was paid and kept, and return figures."""
    draw = random.Random(11)
    looks = 0
    killed = 0
    with running(BAD) as stub:
        while killed < kills:
            code = take_look(folder, stub, count, per_file, draw)
            looks += 1
            killed += code == -9
            assert code != 0, f"everything was answered after {killed} kills"
        code = 5
        while code != 0:
            code = take_look(folder, stub, count, per_file, None)
            looks += 1
            assert looks < kills + 60
        bill = stub.stats()
    with Ledger(folder / "ledger.sqlite") as ledger:
        kept = ledger.get(request.key for request in make_requests(count))
    lost = count - sum(answer.outcome is Outcome.OK for answer in kept.values())
    assert lost == 0
    assert bill["twice"] == 0
    assert bill["billed"] == bill["answers"] == count
    return (
        f"{count:,} questions, {killed} kills in {looks} looks: {lost} lost, {bill['twice']} paid twice; "
        f"{bill['batches']} batches with {bill['accepted']:,} questions, {bill['billed']:,} answers billed"
    )


@pytest.mark.timeout(300)
def test_killed_runs_neither_lose_nor_repeat_a_question(tmp_path: Path) -> None:
    print(kill_often(tmp_path, count=120, per_file=40, kills=4))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_five_thousand_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = kill_often(tmp_path, count=5_000, per_file=500, kills=20)
    with capsys.disabled():
        print(f"\n{figures}")
