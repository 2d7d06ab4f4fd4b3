"""Ask models only for answers that the ledger lacks, so that nothing is paid for twice.

A killed run therefore continues where it stopped. Requests are streamed: however many there are, only those in flight
and a few hundred others are in memory.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from queue import Queue
from typing import Protocol, TypeVar

from tasks.errors import AnswersPending, EngineError
from tasks.models.costs import Budget, Expect, Tally, expect_cost
from tasks.models.engines.engine import Engine, ManyAdapters, Usage
from tasks.models.engines.spec import EngineSpec, Prices
from tasks.models.failures import NO_LIMIT, FailureLimit, Failures
from tasks.models.ledger.ledger import Ledger
from tasks.models.pending import count_answered, join_pending
from tasks.prompts.again import request_reformat, reseed
from tasks.prompts.parsing import ASK_AGAIN, count_rungs, parse
from tasks.records import Generation, Outcome, Prediction, Request
from tasks.storage.stage_record import Costs

_LOOK_UP = 128
"""Keys looked up in the ledger at a time."""
_WAITING = 256
"""Answers that may wait for a slow consumer before the engine has to wait."""

_NO_PRICES = Prices()

Answer = TypeVar("Answer", Generation, Prediction)


class Collect(Protocol):
    """A function that reads a whole stream of answers, one per request. A flow passes one that shows progress."""

    def __call__(self, stream: Iterator[Answer], requests: Sequence[Request], what: str) -> list[Answer]: ...


def collect_all(stream: Iterator[Answer], requests: Sequence[Request], what: str) -> list[Answer]:
    """Return all answers of the stream; show no progress."""
    return list(stream)


@dataclass
class _Opened:
    spec: EngineSpec
    engine: Engine
    since: float


@dataclass
class Asker:
    """Asks models for one stage and counts the costs. A context manager, which closes the engine at the end.

    An engine is opened at the first request that the ledger cannot answer. Only one engine is open at a time, since a
    GPU has no memory for a second model. `what` describes the requests in the progress display. `ask` and
    `ask_for_labels` raise what `stream_answers` raises. More failures than `limit` allows raise TooManyFailures.
    """

    ledger: Ledger
    open_engine: Callable[[EngineSpec], Engine]
    collect: Collect = collect_all
    budget: Budget | None = None
    limit: FailureLimit = NO_LIMIT
    tally: Tally = field(default_factory=Tally)
    _opened: _Opened | None = field(default=None, init=False)

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close_engine()

    def ask(self, requests: Sequence[Request], spec: EngineSpec, what: str) -> dict[str, Generation]:
        """Return the answers, keyed by request key."""
        if not requests:
            return {}
        stream = (generation for _, generation in self._stream(spec, requests))
        answers = self.collect(count_answered(stream, len(requests), what), requests, what)
        return {generation.key: generation for generation in answers}

    def ask_for_labels(
        self, requests: Sequence[Request], spec: EngineSpec, what: str, *, source: str, model: str,
        attempts: int = 1, may_fail: bool = False,
    ) -> list[Prediction]:  # fmt: skip
        """Return a prediction per label request, in input order; ask up to `attempts` times for a readable answer.

        `source` and `model` are written into the predictions. With `may_fail`, any number of questions may fail.
        """
        if not requests:
            return []
        asking = partial(self._stream, spec)
        stream = stream_labels(asking, requests, source=source, model=model, attempts=attempts)
        if not may_fail:
            stream = self.limit.watch(stream, len(requests), what)
        stream = count_answered(stream, len(requests), what)
        found = {p.sample_id: p for p in self.collect(stream, requests, what)}
        predictions = [found[request.sample_id] for request in requests]
        self.tally.rungs.update(count_rungs(predictions))
        self.tally.asked_again += sum(p.attempt for p in predictions)
        return predictions

    def check_failures(self, last_answers: Iterable[tuple[str, Outcome, str]], asked: int, what: str) -> None:
        """Raise TooManyFailures if too many of `asked` questions failed. Answers are (sample id, outcome, detail).

        For answers to `ask`: whether they are final and readable, only the caller knows.
        """
        failures = Failures(self.limit, what, asked)
        for answer in last_answers:
            failures.count(*answer)
        failures.check()

    def costs_so_far(self) -> Costs:
        """Return the costs so far; any thread may call this. An engine's answering time is added when it is closed."""
        tally = self.tally.model_copy(update={"rungs": Counter(self.tally.rungs)})
        if (opened := self._opened) is not None:
            tally.add_session(
                opened.spec.prices, Usage(gpus=opened.engine.usage().gpus), time.monotonic() - opened.since
            )
        return tally.costs()

    def costs(self) -> Costs:
        """Close the engine, so that all of its time is counted, and return the costs."""
        self.close_engine()
        return self.costs_so_far()

    def close_engine(self) -> None:
        """Close the engine, which frees its devices. The next request to a model opens an engine again."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            usage = opened.engine.usage()
            opened.engine.close()
            self.tally.add_session(opened.spec.prices, usage, time.monotonic() - opened.since)

    def _stream(self, spec: EngineSpec, requests: Iterable[Request]) -> Iterator[tuple[Request, Generation]]:
        expect = expect_cost(spec) if spec.batch else None
        open_engine = partial(self._engine, spec)
        return stream_answers(open_engine, self.ledger, requests, self.tally, self.budget, spec.charged, expect)

    def _engine(self, spec: EngineSpec) -> Engine:
        opened = self._opened
        if opened is not None and opened.spec != spec and isinstance(opened.engine, ManyAdapters):
            same_but_adapter = opened.spec.model_copy(update={"adapter": spec.adapter})
            if spec.adapters and spec == same_but_adapter:
                opened.engine.switch_adapter(spec.adapter)
                opened.spec = spec
        if self._opened is None or self._opened.spec != spec:
            self.close_engine()
            since = time.monotonic()
            engine = self.open_engine(spec)
            self._opened = _Opened(spec, engine, since)
        return self._opened.engine


def stream_answers(
    open_engine: Callable[[], Engine],
    ledger: Ledger,
    requests: Iterable[Request],
    tally: Tally,
    budget: Budget | None = None,
    prices: Prices = _NO_PRICES,
    expect: Expect | None = None,
) -> Iterator[tuple[Request, Generation]]:
    """Yield each request with its answer, in any order. The engine answers what the ledger lacks; the ledger keeps it.

    Requests with the same key are asked once. `open_engine` is called in the caller's thread at the first request that
    the ledger cannot answer; `requests` is iterated in another thread. Raises EngineError when the engine dies,
    LedgerError when the ledger cannot be read or written, and whatever `requests` raises. Raises BudgetSpent when
    `budget`, which is charged at `prices`, allows no further request; requests in flight are answered first. Answers
    received before an error stay in the ledger. Where answers come long after the questions, `expect` says what each
    will cost, which the budget counts until then, and AnswersPending is raised if some have not come.
    """
    pump = _Pump(ledger, iter(requests), tally, budget, prices, expect)
    try:
        while (item := pump.out.get()) is not _END:
            if item is _WANTS_ENGINE:
                pump.engine.put(open_engine())
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item  # pyright: ignore[reportReturnType]
        if budget is not None and pump.refused:
            raise budget.make_error()
    finally:
        pump.stop()
        ledger.flush()


def stream_labels(
    stream: Callable[[Iterable[Request]], Iterator[tuple[Request, Generation]]], requests: Iterable[Request],
    *, source: str, model: str, attempts: int,
) -> Iterator[Prediction]:  # fmt: skip
    """Yield a prediction per label request, in any order; ask for unreadable answers again with a new seed.

    `stream(requests)` yields what `stream_answers` yields. Each request is asked at most `attempts` times; the last
    answer counts, readable or not. Raises what `stream_answers` raises.
    """
    pending: list[AnswersPending] = []
    for attempt in range(attempts):
        again: list[Request] = []
        try:
            for request, generation in _stream_reformatted(stream, requests):
                prediction = parse(request, generation, source=source, model=model)
                if prediction.outcome in ASK_AGAIN and attempt + 1 < attempts:
                    again.append(reseed(request, attempt + 1))
                else:
                    yield prediction.model_copy(update={"attempt": attempt}) if attempt else prediction
        except AnswersPending as error:  # what is to be asked again is sent now, not a day later
            pending.append(error)
        if not again:
            break
        requests = again
    if pending:
        raise join_pending(pending)


def _stream_reformatted(
    stream: Callable[[Iterable[Request]], Iterator[tuple[Request, Generation]]], requests: Iterable[Request]
) -> Iterator[tuple[Request, Generation]]:
    """Yield what `stream` yields, or for an answer whose form is missing after thinking the answer with the form."""
    to_reformat: list[Request] = []
    pending: list[AnswersPending] = []

    def draw(asked: Iterable[Request]) -> Iterator[tuple[Request, Generation]]:
        try:
            for request, generation in stream(asked):
                if (again := request_reformat(request, generation)) is None:
                    yield request, generation
                else:
                    to_reformat.append(again)
        except AnswersPending as error:
            pending.append(error)

    yield from draw(requests)
    if to_reformat:
        yield from draw(tuple(to_reformat))
    if pending:
        raise join_pending(pending)


_END, _WANTS_ENGINE = object(), object()


@dataclass
class _Pump:
    """Looks up requests, feeds the engine and passes on answers, so that neither the engine nor the caller has to wait.

    Runs in a thread, because the engine iterates the requests itself, and answers from the ledger must bypass it.
    """

    ledger: Ledger
    requests: Iterator[Request]
    tally: Tally
    budget: Budget | None
    prices: Prices
    expect: Expect | None = None
    refused: bool = False
    """A request was not asked because the budget is spent."""

    def __post_init__(self) -> None:
        self.out: Queue[object] = Queue(_WAITING)
        self.engine: Queue[Engine | None] = Queue()
        self._asked: dict[str, list[Request]] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self.run, name="asking", daemon=True)
        self._thread.start()

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # raised again in the thread that reads the answers
            self.out.put(error)
        else:
            self.out.put(_END)

    def stop(self) -> None:
        """Stop early: requests in flight are abandoned, answers are already kept."""
        self._stopped = True
        self.engine.put(None)
        while self._thread.is_alive():
            while not self.out.empty():
                self.out.get()
            self._thread.join(0.02)

    def _run(self) -> None:
        missing = self._draw_missing()
        first = next(missing, None)
        if first is None:
            return
        self.out.put(_WANTS_ENGINE)
        engine = self.engine.get()
        if engine is None:
            return
        answers = engine.generate(chain([first], missing))
        for generation in answers:
            requests = self._asked.pop(generation.key, None)
            if requests is None:
                raise EngineError(f"{engine.fingerprint} returned an answer to {generation.key}, which was not asked")
            self.ledger.put(requests[0], generation)
            self.tally.add(generation, self.prices)
            if self.budget is not None:
                self.budget.charge(generation, self.prices)
            for request in requests:
                self.out.put((request, generation))
            if self._stopped:
                return
        if self._asked:
            raise EngineError(f"{engine.fingerprint} ended with {len(self._asked)} requests unanswered; run again")

    def _draw_missing(self) -> Iterator[Request]:
        """Yield the requests that are neither in the ledger nor in flight; pass on the answers of the others."""
        while not self._stopped and (chunk := list(islice(self.requests, _LOOK_UP))):
            known = self.ledger.get([request.key for request in chunk])
            missing: list[Request] = []
            for request in chunk:
                if request.key in self._asked:
                    self._asked[request.key].append(request)
                elif request.key not in known:
                    self._asked[request.key] = [request]
                    missing.append(request)
            for request in chunk:
                if request.key in known:
                    self.tally.reused += 1
                    self.out.put((request, known[request.key]))
            for place, request in enumerate(missing):
                if self._stopped:
                    return
                if self.budget is not None and not self.budget.allow():
                    self.refused = True
                    for unasked in missing[place:]:
                        del self._asked[unasked.key]
                    return
                if self.budget is not None and self.expect is not None:
                    self.budget.reserve(request.key, *self.expect(request))
                yield request
