import asyncio
from collections import deque

import pytest

from tasks.models.engines.server.pacing import AdaptiveLimit, Patience, Progress
from tests.stub_server import Options, running
from tests.tasks.models.engines.asking_stub import check_answers, make_requests, open_engine_on


def find_mean_limit(bears: int, most: int, answers: int) -> float:
    """Answer the oldest request, and refuse each new one while `bears` are in flight; return the limit's mean."""
    limit, in_flight, seen = AdaptiveLimit(most), 0, []
    while len(seen) < answers:
        if in_flight < min(bears, limit.now):
            in_flight += 1
        elif in_flight < limit.now:
            limit.note_overload()
        else:
            in_flight -= 1
            limit.note_answer()
            seen.append(limit.now)
    return sum(seen) / answers


@pytest.mark.parametrize("bears", [1, 48, 200])
def test_the_limit_stays_at_what_the_server_bears(bears: int) -> None:
    assert find_mean_limit(bears, 256, 5_000) == pytest.approx(bears, rel=0.05, abs=1)


def test_the_limit_is_halved_when_all_requests_in_flight_time_out_and_comes_back() -> None:
    limit = AdaptiveLimit(64)
    for _ in range(64):
        limit.note_overload()
    assert limit.now == 32
    for _ in range(500):
        limit.note_overload()
    assert limit.now == 1
    for _ in range(600):
        limit.note_answer()
    assert limit.now == 64


def test_no_more_than_the_limit_are_in_flight() -> None:
    async def run() -> list[int]:
        limit, inside, counts = AdaptiveLimit(8), deque[None](), list[int]()

        async def work(number: int) -> None:
            async with limit:
                inside.append(None)
                counts.append(len(inside) - limit.now)
                await asyncio.sleep(0)
                inside.pop()
            limit.note_overload() if number < 12 else limit.note_answer()

        await asyncio.gather(*(work(number) for number in range(100)))
        return counts

    counts = asyncio.run(run())
    assert len(counts) == 100
    assert max(counts[20:]) <= 0


def test_only_a_lack_of_progress_is_a_timeout() -> None:
    progress = Progress(Patience(silence=10))
    assert not progress.is_overdue(sent_at=0, tokens=0, now=29), "nobody knows how long a first answer takes"
    progress.note_answer(sent_at=0, now=20)
    assert not progress.is_overdue(sent_at=0, tokens=0, now=59), "others are answered after 20 s"
    assert progress.is_overdue(sent_at=0, tokens=0, now=61)
    assert not progress.is_overdue(sent_at=0, tokens=45_000, now=61), "a long answer takes longer"
    progress.note_answer(sent_at=40, now=60)
    assert not progress.is_overdue(sent_at=0, tokens=0, now=99)
    assert progress.is_overdue(sent_at=0, tokens=0, now=101), "five times as long as the slowest other"


@pytest.mark.parametrize("fields", [{"gateway_seconds": 1.0}, {"most_in_flight": 8}], ids=["504", "429"])
def test_an_overloaded_server_answers_every_item(fields: dict[str, float], tmp_path) -> None:
    requests = list(make_requests(150))
    options = Options(median_seconds=0.05, slots=4, **fields)  # type: ignore[arg-type]
    with running(options) as stub, open_engine_on(tmp_path, stub.url, concurrency=100) as engine:
        check_answers(requests, list(engine.generate(requests)), {})
        assert 150 < stub.stats()["received"] < 800
