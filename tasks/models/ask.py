"""Ask an engine, ledger first: nothing is paid twice, and a killed run goes on where it was.

Requests stream through: however many there are, only those in flight and a few hundred around them are in memory.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from queue import Queue

from tasks.errors import BudgetSpent, EngineError
from tasks.models.costs import Tally
from tasks.models.engines.engine import Engine
from tasks.models.ledger.ledger import Ledger
from tasks.models.spending import Purse
from tasks.prompts.parsing import ASK_AGAIN, parse
from tasks.prompts.prompter import reseeded
from tasks.records import Generation, Prediction, Request

_LOOK_UP = 128
"""Keys looked up in the ledger at a time."""
_WAITING = 256
"""Answers that wait for a slow consumer before the engine is held up."""


def ask(
    open_engine: Callable[[], Engine],
    ledger: Ledger,
    requests: Iterable[Request],
    tally: Tally,
    purse: Purse | None = None,
) -> Iterator[tuple[Request, Generation]]:
    """Each request with its answer, unordered: from the ledger, else from the engine and then kept in the ledger.

    Equal questions (same key) in flight are asked once. `open_engine` is called in the caller's thread at the first
    question that the ledger can't answer; requests are drawn from their iterable in another thread. Raises EngineError
    when the engine died, LedgerError when an answer can't be kept, BudgetSpent when `purse` allows no further question
    and those in flight are answered, and what `requests` raises; what was answered before stays in the ledger.
    """
    pump = _Pump(ledger, requests, tally, purse)
    pump.start()
    try:
        while (item := pump.out.get()) is not _END:
            if item is _WANTS_ENGINE:
                pump.engine.put(open_engine())
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item  # pyright: ignore[reportReturnType]
        if purse is not None and pump.refused:
            raise BudgetSpent(f"the budget is spent: {purse.budget.words()}; the next run goes on from here")
    finally:
        pump.stop()
        ledger.flush()


def ask_for_labels(
    open_engine: Callable[[], Engine],
    ledger: Ledger,
    requests: Iterable[Request],
    tally: Tally,
    *,
    source: str,
    model: str,
    attempts: int,
    purse: Purse | None = None,
) -> Iterator[Prediction]:
    """The prediction of each label request; one that can't be read is asked again with a new seed.

    Each request is asked at most `attempts` times; the last answer stands, whatever it is. Raises like `ask`.
    """
    for attempt in range(attempts):
        again: list[Request] = []
        for request, generation in ask(open_engine, ledger, requests, tally, purse):
            prediction = parse(request, generation, source=source, model=model)
            if prediction.outcome in ASK_AGAIN and attempt + 1 < attempts:
                again.append(reseeded(request, attempt + 1))
            else:
                yield prediction.model_copy(update={"attempt": attempt}) if attempt else prediction
        if not again:
            return
        requests = again


_END, _WANTS_ENGINE = object(), object()


class _Pump(threading.Thread):
    """Draws requests, looks them up, feeds the engine and hands answers to the caller, so that none waits for another.

    A thread, because the engine draws the stream itself: answers found in the ledger must get past it.
    """

    refused = False
    """Whether a question was not put because the budget is spent."""

    def __init__(self, ledger: Ledger, requests: Iterable[Request], tally: Tally, purse: Purse | None) -> None:
        super().__init__(name="asking", daemon=True)
        self.out: Queue[object] = Queue(_WAITING)
        self.engine: Queue[Engine | None] = Queue()
        self._ledger, self._requests, self._tally = ledger, iter(requests), tally
        self._purse = purse
        self._asked: dict[str, list[Request]] = {}
        self._stopped = False

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
        while self.is_alive():
            while not self.out.empty():
                self.out.get()
            self.join(0.02)

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
            self._ledger.put(requests[0], generation)
            self._tally.add(generation)
            if self._purse is not None:
                self._purse.budget.charge(generation, self._purse.prices)
            for request in requests:
                self.out.put((request, generation))
            if self._stopped:
                return
        if self._asked:
            raise EngineError(f"{engine.fingerprint} ended with {len(self._asked)} requests unanswered; run again")

    def _missing(self) -> Iterator[Request]:
        """The requests that are neither in the ledger nor in flight; the others' answers go straight out."""
        while not self._stopped and (chunk := list(islice(self._requests, _LOOK_UP))):
            known = self._ledger.get([request.key for request in chunk])
            missing: list[Request] = []
            for request in chunk:
                if request.key in self._asked:
                    self._asked[request.key].append(request)
                elif request.key not in known:
                    self._asked[request.key] = [request]
                    missing.append(request)
            for request in chunk:
                if request.key in known:
                    self._tally.reused += 1
                    self.out.put((request, known[request.key]))
            for place, request in enumerate(missing):
                if self._stopped:
                    return
                if self._purse is not None and not self._purse.budget.allow():
                    self.refused = True
                    for unasked in missing[place:]:
                        del self._asked[unasked.key]
                    return
                yield request
