import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tasks.errors import BudgetSpent, EngineError
from tasks.models.ask import Answer, Asker, stream_answers, stream_labels
from tasks.models.costs import Budget, Tally
from tasks.models.engines.engine import Engine, Usage
from tasks.models.engines.scripted import ScriptedEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import BudgetSettings
from tasks.records import Generation, Outcome, Request, Sampling
from tests.tasks.making import generation, prompter, sample


class Small:
    """A small engine for one test; by default it answers everything."""

    fingerprint = "small"
    notes = ()

    def __init__(self) -> None:
        self.seen: list[Request] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        for number, request in enumerate(requests):
            self.seen.append(request)
            yield self.answer(number, request)

    def answer(self, number: int, request: Request) -> Generation:
        return generation(request.key)

    def usage(self) -> Usage:
        return Usage()

    def close(self) -> None:
        """Nothing to free."""


class Dying(Small):
    """Answers the first two, then dies."""

    def answer(self, number: int, request: Request) -> Generation:
        if number == 2:
            raise EngineError("the engine died")
        return generation(request.key)


class Failing(Small):
    """Fails for every other request."""

    def answer(self, number: int, request: Request) -> Generation:
        return generation(request.key, outcome=Outcome.FAILED if number % 2 else Outcome.OK)


class Late(Small):
    """Draws a dozen requests before it answers the first, like an engine with many in flight."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        held: list[Request] = []
        for request in requests:
            held.append(request)
            self.seen.append(request)
            if len(held) == 12:
                yield generation(held.pop().key)
        yield from (generation(request.key) for request in held)


class Forgetful(Small):
    """Ends without an answer to the last request."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        answers = list(super().generate(requests))
        yield from answers[:-1]


class Improving(Small):
    """Gives an unreadable answer to greedy requests and a right one to sampled requests."""

    def answer(self, number: int, request: Request) -> Generation:
        text = '{"理由": "因为", "所属类别": "申请退款"}' if request.sampling.temperature else "<<<"
        return generation(request.key, texts=(text,))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def scripted() -> Engine:
    return ScriptedEngine(EngineSpec(engine="scripted", model="scripted:hash"))


def never() -> Engine:
    raise AssertionError("nothing was left to ask")


def questions(count: int) -> list[Request]:
    prompts = prompter()
    return [prompts.classify(sample(f"s{i}"), Sampling()) for i in range(count)]


def test_every_request_comes_back_once_with_its_own_answer(ledger: Ledger) -> None:
    requests, tally = questions(300), Tally()
    pairs = list(stream_answers(scripted, ledger, requests, tally))
    assert sorted(r.sample_id for r, _ in pairs) == sorted(r.sample_id for r in requests)
    assert all(request.key == answer.key for request, answer in pairs)
    assert (tally.asked, tally.reused) == (300, 0)
    assert tally.tokens_in == sum(answer.tokens_in for _, answer in pairs) > 0


def test_answers_in_the_ledger_are_not_asked_for_again(ledger: Ledger) -> None:
    requests, tally = questions(5), Tally()
    first = list(stream_answers(scripted, ledger, requests[:3], Tally()))
    small = Small()
    again = {r.sample_id: g for r, g in stream_answers(lambda: small, ledger, requests, tally)}
    assert [r.sample_id for r in small.seen] == ["s3", "s4"]
    assert {r.sample_id: g for r, g in first}.items() <= again.items()
    assert (tally.asked, tally.reused) == (2, 3)


def test_no_engine_is_opened_when_nothing_is_missing(ledger: Ledger) -> None:
    list(stream_answers(scripted, ledger, questions(3), Tally()))
    assert len(list(stream_answers(never, ledger, questions(3), Tally()))) == 3
    assert list(stream_answers(never, ledger, [], Tally())) == []


def test_the_engine_is_opened_in_the_callers_thread(ledger: Ledger) -> None:
    threads: list[threading.Thread] = []

    def opened() -> Engine:
        threads.append(threading.current_thread())
        return scripted()

    list(stream_answers(opened, ledger, questions(2), Tally()))
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize("engine", [Small, Late])
def test_equal_requests_are_asked_once_and_each_is_answered(ledger: Ledger, engine: type[Small]) -> None:
    prompts = prompter()
    requests = [prompts.classify(sample(f"s{i}", f"用户: {i % 4}"), Sampling()) for i in range(200)]
    small = engine()
    pairs = list(stream_answers(lambda: small, ledger, requests, Tally()))
    assert sorted(r.sample_id for r, _ in pairs) == sorted(r.sample_id for r in requests)
    assert len(small.seen) == 4


def test_answers_received_before_the_engine_died_are_kept(ledger: Ledger) -> None:
    requests, small = questions(5), Small()
    with pytest.raises(EngineError, match="died"):
        list(stream_answers(Dying, ledger, requests, Tally()))
    list(stream_answers(lambda: small, ledger, requests, Tally()))
    assert [r.sample_id for r in small.seen] == ["s2", "s3", "s4"]


def test_an_unanswered_request_is_an_error_not_a_loss(ledger: Ledger) -> None:
    with pytest.raises(EngineError, match="1 requests unanswered"):
        list(stream_answers(Forgetful, ledger, questions(4), Tally()))


def test_a_failed_item_is_answered_now_and_asked_again_next_time(ledger: Ledger) -> None:
    requests, small, tally = questions(4), Small(), Tally()
    assert [g.outcome for _, g in stream_answers(Failing, ledger, requests, tally)] == ["ok", "failed", "ok", "failed"]
    assert tally.failed == 2
    list(stream_answers(lambda: small, ledger, requests, Tally()))
    assert [r.sample_id for r in small.seen] == ["s1", "s3"]


def test_an_error_in_the_requests_is_raised_to_the_caller(ledger: Ledger) -> None:
    def broken() -> Iterator[Request]:
        yield from questions(200)
        raise ValueError("template")

    with pytest.raises(ValueError, match="template"):
        list(stream_answers(scripted, ledger, broken(), Tally()))


def test_a_caller_that_stops_early_keeps_what_was_answered_and_leaves_no_thread(ledger: Ledger) -> None:
    prompts = prompter()
    endless = (prompts.classify(sample(f"s{i}"), Sampling()) for i in range(10**9))
    stream = stream_answers(scripted, ledger, endless, Tally())
    answered = [next(stream)[0].key for _ in range(10)]
    stream.close()
    assert set(answered) <= set(ledger.get(answered))
    assert not [t for t in threading.enumerate() if t.name == "asking"]


def test_a_slow_caller_holds_the_engine_up_instead_of_filling_the_memory(ledger: Ledger) -> None:
    small = Small()
    stream = stream_answers(lambda: small, ledger, (r for r in questions(2000)), Tally())
    next(stream)
    time.sleep(0.5)
    assert len(small.seen) < 1000
    assert len(list(stream)) == 1999


def test_an_unreadable_answer_is_asked_for_again_with_another_seed(ledger: Ledger) -> None:
    small = Improving()
    asking = partial(stream_answers, lambda: small, ledger, tally=Tally())
    found = list(stream_labels(asking, questions(3), source="t", model="m", attempts=2))
    assert [(p.outcome, p.label, p.attempt) for p in found] == [(Outcome.OK, "申请退款", 1)] * 3
    assert len({r.key for r in small.seen}) == len(small.seen) == 6
    assert {r.sampling.seed for r in small.seen[3:]} != {r.sampling.seed for r in small.seen[:3]}


def test_attempts_are_bounded_and_the_last_answer_counts(ledger: Ledger) -> None:
    engine = ScriptedEngine(EngineSpec(engine="scripted", model="scripted:bad=1"))
    asking = partial(stream_answers, lambda: engine, ledger, tally=Tally())
    found = list(stream_labels(asking, questions(2), source="t", model="m", attempts=3))
    assert [(p.outcome, p.attempt) for p in found] == [(Outcome.MALFORMED, 2)] * 2
    assert len(ledger) == 6


# --- the asker ---------------------------------------------------------------------------------------------------


class Switching(Small):
    """Can switch between adapters."""

    def __init__(self) -> None:
        super().__init__()
        self.turned: list[str | None] = []
        self.closed = False

    def switch_adapter(self, adapter: str | None) -> None:
        self.turned.append(adapter)

    def close(self) -> None:
        self.closed = True


def test_an_asker_has_one_engine_open_at_a_time_and_counts_its_time(ledger: Ledger) -> None:
    opened: list[Switching] = []

    def open_engine(spec: EngineSpec) -> Engine:
        assert all(engine.closed for engine in opened)
        opened.append(Switching())
        return opened[-1]

    asked, spec = questions(4), EngineSpec(model="m", adapters=("a", "b"), prices={"gpu_hour": 1.0})
    with Asker(ledger, open_engine) as asker:
        assert asker.ask([], spec, "nothing") == {} and not opened
        for number, adapter in enumerate(("a", "b")):
            one = asked[number : number + 1]
            assert set(asker.ask(one, spec.model_copy(update={"adapter": adapter}), "items")) == {one[0].key}
        assert (len(opened), opened[0].turned) == (1, ["b"])
        asker.ask(asked[2:3], EngineSpec(model="other"), "items")
        assert (len(opened), opened[0].closed) == (2, True)
        assert (asker.costs_so_far().asked, asker.costs().asked, opened[1].closed) == (3, 3, True)


def test_an_asker_returns_labels_in_order_and_counts_what_it_asked_again(ledger: Ledger) -> None:
    asked, collected = questions(3), []

    def collect(stream: Iterator[Answer], requests: Sequence[Request], what: str) -> list[Answer]:
        collected.append((len(requests), what))
        return list(stream)

    with Asker(ledger, lambda _: Improving(), collect, Budget(BudgetSettings(requests=6))) as asker:
        spec = EngineSpec(model="m")
        found = asker.ask_for_labels(asked, spec, "labels", source="t", model="m", attempts=2)
        assert [p.sample_id for p in found] == ["s0", "s1", "s2"]
        costs = asker.costs()
        assert (costs.asked, costs.asked_again, costs.rungs, collected) == (6, 3, {"strict": 3}, [(3, "labels")])
        with pytest.raises(BudgetSpent, match="6 of 6 requests"):
            asker.ask_for_labels(questions(4), spec, "more", source="t", model="m")
