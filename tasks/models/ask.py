"""Ask models, ledger first: nothing is paid twice, and a killed run goes on where it was.

Requests stream through: however many there are, only those in flight and a few hundred around them are in memory.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from queue import Queue
from typing import Protocol, TypeVar

from tasks.errors import EngineError
from tasks.models.costs import Budget, Tally
from tasks.models.engines.engine import Engine, ManyAdapters, Usage
from tasks.models.engines.spec import EngineSpec, Prices
from tasks.models.ledger.ledger import Ledger
from tasks.prompts.parsing import ASK_AGAIN, parse, rung_counts
from tasks.prompts.prompter import reseeded
from tasks.records import Generation, Prediction, Request
from tasks.storage.stage_record import Costs

_LOOK_UP = 128
"""Keys looked up in the ledger at a time."""
_WAITING = 256
"""Answers that wait for a slow consumer before the engine is held up."""

_NO_PRICES = Prices()

Answer = TypeVar("Answer", Generation, Prediction)


class Collect(Protocol):
    """Draw every answer from a stream, one per request. A flow does so in task runs and shows the progress."""

    def __call__(self, stream: Iterator[Answer], requests: Sequence[Request], what: str) -> list[Answer]: ...


def collect_all(stream: Iterator[Answer], requests: Sequence[Request], what: str) -> list[Answer]:
    """Draw every answer at once."""
    return list(stream)


@dataclass
class _Opened:
    spec: EngineSpec
    engine: Engine
    since: float


@dataclass
class Asker:
    """Asks models for one stage and adds up what that costs. A context manager, which closes the engine.

    An engine is opened at the first question that the ledger can't answer, one at a time: on one GPU there is no room
    for a second model. `what` says in the progress what is asked. All asking raises what `stream_answers` raises.
    """

    ledger: Ledger
    open_engine: Callable[[EngineSpec], Engine]
    collect: Collect = collect_all
    budget: Budget | None = None
    tally: Tally = field(default_factory=Tally)
    _opened: _Opened | None = field(default=None, init=False)

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close_engine()

    def ask(self, requests: Sequence[Request], spec: EngineSpec, what: str) -> dict[str, Generation]:
        """Return the answer to each request, by its key."""
        if not requests:
            return {}
        answers = self.collect((generation for _, generation in self._stream(spec, requests)), requests, what)
        return {generation.key: generation for generation in answers}

    def ask_for_labels(
        self, requests: Sequence[Request], spec: EngineSpec, what: str, *, source: str, model: str, attempts: int = 1
    ) -> list[Prediction]:
        """Return the prediction of each label request, in order; ask up to `attempts` times for one that can be read.

        `source` and `model` are those of the predictions.
        """
        if not requests:
            return []
        asking = partial(self._stream, spec)
        stream = stream_labels(asking, requests, source=source, model=model, attempts=attempts)
        found = {p.sample_id: p for p in self.collect(stream, requests, what)}
        predictions = [found[request.sample_id] for request in requests]
        self.tally.rungs.update(rung_counts(predictions))
        self.tally.asked_again += sum(p.attempt for p in predictions)
        return predictions

    def costs_so_far(self) -> Costs:
        """Return the costs up to now, safe in any thread; how full the open engine is kept shows when it is closed."""
        tally = replace(self.tally, rungs=Counter(self.tally.rungs))
        if (opened := self._opened) is not None:
            tally.add_session(
                opened.spec.prices, Usage(gpus=opened.engine.usage().gpus), time.monotonic() - opened.since
            )
        return tally.costs()

    def costs(self) -> Costs:
        """Close the engine, whose time is part of the costs, and return them."""
        self.close_engine()
        return self.costs_so_far()

    def close_engine(self) -> None:
        """Free the devices for what comes next; the next question opens an engine again."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            usage = opened.engine.usage()
            opened.engine.close()
            self.tally.add_session(opened.spec.prices, usage, time.monotonic() - opened.since)

    def _stream(self, spec: EngineSpec, requests: Iterable[Request]) -> Iterator[tuple[Request, Generation]]:
        return stream_answers(lambda: self._engine(spec), self.ledger, requests, self.tally, self.budget, spec.prices)

    def _engine(self, spec: EngineSpec) -> Engine:
        opened = self._opened
        if opened is not None and opened.spec != spec and isinstance(opened.engine, ManyAdapters):
            same_but_adapter = opened.spec.model_copy(update={"adapter": spec.adapter})
            if spec.adapters and spec == same_but_adapter:
                opened.engine.turn_to(spec.adapter)
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
) -> Iterator[tuple[Request, Generation]]:
    """Yield each request with its answer, unordered: from the ledger, else from the engine and then kept in the ledger.

    Equal questions (same key) in flight are asked once. `open_engine` is called in the caller's thread at the first
    question that the ledger can't answer; requests are drawn from their iterable in another thread. Raises EngineError
    when the engine died, LedgerError when an answer can't be kept, BudgetSpent when `budget` (charged at `prices`)
    allows no further question and those in flight are answered, and what `requests` raises; what was answered before
    stays in the ledger.
    """
    pump = _Pump(ledger, iter(requests), tally, budget, prices)
    try:
        while (item := pump.out.get()) is not _END:
            if item is _WANTS_ENGINE:
                pump.engine.put(open_engine())
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item  # pyright: ignore[reportReturnType]
        if budget is not None and pump.refused:
            raise budget.exhausted()
    finally:
        pump.stop()
        ledger.flush()


def stream_labels(
    stream: Callable[[Iterable[Request]], Iterator[tuple[Request, Generation]]], requests: Iterable[Request],
    *, source: str, model: str, attempts: int,
) -> Iterator[Prediction]:  # fmt: skip
    """Yield the prediction of each label request; one that can't be read is asked again with a new seed.

    `stream` is `stream_answers` of some engine and ledger. Each request is asked at most `attempts` times; the last
    answer counts, whatever it is. Raises like `stream_answers`.
    """
    for attempt in range(attempts):
        again: list[Request] = []
        for request, generation in stream(requests):
            prediction = parse(request, generation, source=source, model=model)
            if prediction.outcome in ASK_AGAIN and attempt + 1 < attempts:
                again.append(reseeded(request, attempt + 1))
            else:
                yield prediction.model_copy(update={"attempt": attempt}) if attempt else prediction
        if not again:
            return
        requests = again


_END, _WANTS_ENGINE = object(), object()


@dataclass
class _Pump:
    """Draws requests, looks them up, feeds the engine and hands answers to the caller, so that none waits for another.

    In a thread, because the engine draws the stream itself: answers found in the ledger must get past it.
    """

    ledger: Ledger
    requests: Iterator[Request]
    tally: Tally
    budget: Budget | None
    prices: Prices
    refused: bool = False
    """Whether a question was not put because the budget is spent."""

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
        except BaseException as error:  # raised where the answers are read
            self.out.put(error)
        else:
            self.out.put(_END)

    def stop(self) -> None:
        """End early: what is in flight is given up, what is answered has been kept."""
        self._stopped = True
        self.engine.put(None)
        while self._thread.is_alive():
            while not self.out.empty():
                self.out.get()
            self._thread.join(0.02)

    def _run(self) -> None:
        missing = self._missing()
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
                raise EngineError(f"{engine.fingerprint} answered {generation.key}, which is not being asked")
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

    def _missing(self) -> Iterator[Request]:
        """The requests that are neither in the ledger nor in flight; the others' answers go straight out."""
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
                yield request
