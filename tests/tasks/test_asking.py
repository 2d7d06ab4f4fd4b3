from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tasks.asking import ask, plan
from tasks.engines import EngineSpec
from tasks.engines.scripted import ScriptedEngine
from tasks.errors import EngineError
from tasks.ledger import Ledger
from tasks.records import Generation, Outcome, Request, Sampling
from tests.tasks.making import generation, prompter, sample


class Dying:
    """Answers the first two, then dies."""

    fingerprint = "dying"

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        for number, request in enumerate(requests):
            if number == 2:
                raise EngineError("the engine died")
            yield generation(request.key)

    def close(self) -> None:
        """Nothing to free."""


class Failing(Dying):
    """Fails on every other item."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        for number, request in enumerate(requests):
            yield generation(request.key, outcome=Outcome.FAILED if number % 2 else Outcome.OK)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def scripted() -> ScriptedEngine:
    return ScriptedEngine(EngineSpec(engine="scripted", model="scripted:hash"))


def questions(count: int) -> list[Request]:
    return [prompter().classify(sample(f"s{i}"), Sampling()) for i in range(count)]


def nothing(_: Generation) -> None:
    """Progress that nobody looks at."""


def test_what_the_ledger_holds_is_not_asked_again(ledger: Ledger) -> None:
    requests = questions(5)
    first = ask(scripted(), ledger, plan(requests[:3], ledger).missing, nothing)
    todo = plan(requests, ledger)
    assert todo.answers == {g.key: g for g in first}
    assert [r.sample_id for r in todo.missing] == ["s3", "s4"]
    assert (todo.tally.reused, todo.tally.asked) == (3, 0)
    ask(scripted(), ledger, todo.missing, nothing)
    assert plan(requests, ledger).missing == ()


def test_equal_questions_are_asked_once(ledger: Ledger) -> None:
    requests = [prompter().classify(sample(id, "用户: 同"), Sampling()) for id in "abc"]
    assert len(plan(requests, ledger).missing) == 1


def test_shards_are_the_missing_ones_in_order(ledger: Ledger) -> None:
    requests = questions(5)
    shards = list(plan(requests, ledger).shards(2))
    assert [len(s) for s in shards] == [2, 2, 1]
    assert [r for shard in shards for r in shard] == requests
    assert list(plan([], ledger).shards(2)) == []


def test_each_answer_is_told_counted_and_kept(ledger: Ledger) -> None:
    requests, told = questions(3), list[Generation]()
    tally = plan(requests, ledger).tally

    def on_answer(answer: Generation) -> None:
        told.append(answer)
        tally.add(answer)

    answers = ask(scripted(), ledger, requests, on_answer)
    assert told == answers
    assert {a.key for a in answers} == {r.key for r in requests} == set(ledger.get(r.key for r in requests))
    assert (tally.asked, tally.tokens_in) == (3, sum(a.tokens_in for a in answers))
    assert tally.tokens_out == sum(a.tokens_out for a in answers) > 0


def test_what_came_before_the_engine_died_is_on_disk(ledger: Ledger) -> None:
    requests = questions(5)
    with pytest.raises(EngineError, match="died"):
        ask(Dying(), ledger, requests, nothing)
    with Ledger(ledger.path) as other:
        assert [r.sample_id for r in plan(requests, other).missing] == ["s2", "s3", "s4"]


def test_a_failed_item_is_answered_now_and_asked_again_next_time(ledger: Ledger) -> None:
    requests = questions(4)
    answers = ask(Failing(), ledger, requests, nothing)
    assert [a.outcome for a in answers] == ["ok", "failed", "ok", "failed"]
    assert [r.sample_id for r in plan(requests, ledger).missing] == ["s1", "s3"]
