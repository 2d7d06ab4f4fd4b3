"""Asking models in a stage flow: one engine open at a time, a task run a shard, the bill at the end.

A shard is a stretch of the answers, not of the questions: the engine goes on with the next questions while one task run
ends and another begins, so no barrier ever empties it.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar
from uuid import UUID

from prefect import get_run_logger
from prefect.context import FlowRunContext

from flows.config import CommonConfig
from flows.runners import open_where_configured, run_as_task
from flows.ui import Progress
from tasks.errors import BudgetSpent
from tasks.models.ask import ask, ask_for_labels
from tasks.models.costs import Costs, Session, Tally, add_up
from tasks.models.engines.engine import Engine, EngineSpec, ManyAdapters, Usage, Workplace
from tasks.models.image_cache import ImageCache
from tasks.models.ledger.ledger import Ledger
from tasks.models.spending import Budget, Purse
from tasks.prompts.parsing import rung_counts
from tasks.prompts.prompter import LONG_PROMPT, fixed_chars
from tasks.records import USABLE, Generation, Prediction, Request

T = TypeVar("T")


_BUDGET: ContextVar[Budget | None] = ContextVar("budget", default=None)
"""Of the run under way: its stages are flows of their own, but spend together."""


_OF_RUNS: dict[UUID, Budget] = {}
"""By flow run: Prefect tries a failed run again in the same process, and that try goes on with what is left."""


@contextmanager
def spending(budget: Budget) -> Generator[Budget]:
    """All asking within the block, subflows included, is paid from `budget`; BudgetSpent ends it.

    A flow run that is tried again gets the budget of its first try, not `budget`.
    """
    run = FlowRunContext.get()
    if run is not None and run.flow_run is not None:
        budget = _OF_RUNS.setdefault(run.flow_run.id, budget)
    before = _BUDGET.set(budget)
    try:
        yield budget
    finally:
        _BUDGET.reset(before)


def spent() -> BudgetSpent:
    """What a run says of a stage that had to stop."""
    budget = _BUDGET.get()
    return BudgetSpent(f"the budget is spent: {budget.words() if budget else '?'}; the next run goes on from here")


def purse_at(spec: EngineSpec) -> Purse | None:
    """The run's budget at the prices of this engine; None where nothing is limited."""
    budget = _BUDGET.get()
    return None if budget is None else Purse(budget, spec.prices)


@dataclass
class _Open:
    spec: EngineSpec
    engine: Engine
    since: float
    before: Tally
    """The stage's tally when it was opened."""
    gpus: int


@dataclass
class Asking:
    """Everything a stage needs to ask models: opens an engine at its first unanswered question, one at a time."""

    config: CommonConfig
    stage: str
    ledger: Ledger
    most_images: int = 0
    """The most images of one item: what a server must be prepared for."""
    _tally: Tally = field(default_factory=Tally)
    _open: _Open | None = None
    _sessions: list[Session] = field(default_factory=list)
    _rungs: dict[str, int] = field(default_factory=dict)
    _again: int = 0

    def __enter__(self) -> "Asking":
        if self.ledger.notice:
            get_run_logger().warning("%s", self.ledger.notice)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def answers(self, requests: Sequence[Request], spec: EngineSpec, what: str) -> dict[str, Generation]:
        """The answer of each request by key: from the ledger, else from the engine."""
        stream = ask(lambda: self._engine(spec), self.ledger, requests, self._tally, purse_at(spec))
        pairs = self._in_shards(stream, requests, what)
        return {request.key: generation for request, generation in pairs}

    def labels(
        self, requests: Sequence[Request], spec: EngineSpec, what: str, *, source: str, model: str, attempts: int = 1
    ) -> list[Prediction]:
        """The prediction of each label request, in order; unreadable ones are asked for up to `attempts` times."""
        stream = ask_for_labels(
            lambda: self._engine(spec), self.ledger, requests, self._tally,
            source=source, model=model, attempts=attempts, purse=purse_at(spec),
        )  # fmt: skip
        found = {p.sample_id: p for p in self._in_shards(stream, requests, what)}
        predictions = [found[request.sample_id] for request in requests]
        for rung, count in rung_counts(predictions).items():
            self._rungs[rung] = self._rungs.get(rung, 0) + count
        self._again += sum(p.attempt for p in predictions)
        return predictions

    def so_far(self) -> Costs:
        """The bill up to now, safe in any thread; how full the open engine is kept is known when it is closed."""
        sessions = list(self._sessions)
        if (opened := self._open) is not None:
            usage, held = Usage(gpus=opened.gpus), time.monotonic() - opened.since
            sessions.append(Session(opened.spec.prices, usage, held, self._tally.since(opened.before)))
        return add_up(self._tally, sessions, self._again, dict(self._rungs))

    def costs(self) -> Costs:
        """The bill so far; closes the engine, whose time is part of it."""
        self._close()
        return add_up(self._tally, self._sessions, self._again, self._rungs)

    def rest(self) -> None:
        """Close the engine: what comes next needs the devices itself."""
        self._close()

    def _in_shards(self, stream: Iterator[T], requests: Sequence[Request], what: str) -> list[T]:
        if not requests:
            return []
        self._warn_of_long_prompt(requests[0])
        found: list[T] = []
        reused = self._tally.reused

        def take() -> list[T]:
            taken: list[T] = []
            for item in islice(stream, self.config.shard_size):
                taken.append(item)
                progress.advance(dropped=_came_to_nothing(item))
            return taken

        with Progress(self.stage, what, len(requests), lambda: self.so_far().cost) as progress:
            while len(found) < len(requests):
                last = min(len(found) + self.config.shard_size, len(requests))
                title = f"{what}: {len(found) + 1} to {last} of {len(requests)}"  # the graph's font has no dash
                found += run_as_task(f"ask: {self.stage}", title, take)
            for _ in stream:  # the stream's own end: what it still has to put away
                raise AssertionError(f"{what}: more answers than questions")
        if self._tally.reused > reused:
            log = get_run_logger()
            log.info("%s: %d of %d answers reused from the ledger", what, self._tally.reused - reused, len(requests))
        return found

    def _warn_of_long_prompt(self, request: Request) -> None:
        if (chars := fixed_chars(request)) > LONG_PROMPT:
            get_run_logger().warning(
                "the fixed part of the `%s` prompt has %d characters; answers get worse beyond about %d: shorten "
                "glosses or examples of pack `%s`",
                request.purpose, chars, LONG_PROMPT, self.config.pack,
            )  # fmt: skip

    def _engine(self, spec: EngineSpec) -> Engine:
        opened = self._open
        if opened is not None and opened.spec != spec and isinstance(opened.engine, ManyAdapters):
            same_but_adapter = opened.spec.model_copy(update={"adapter": spec.adapter})
            if spec.adapters and spec == same_but_adapter:
                opened.engine.turn_to(spec.adapter)
                opened.spec = spec
        if self._open is None or self._open.spec != spec:
            # one at a time: on one GPU there is no room for the next model beside this one
            self._close()
            log = get_run_logger()
            log.info("opening %s engine with %s", spec.engine, spec.adapter or spec.model)
            since = time.monotonic()
            place = Workplace(ImageCache(self.config.images), self.config.output / "logs", self.most_images)
            engine = open_where_configured(self.config, spec, place)
            for note in engine.notes:
                log.info("%s", note)
            self._open = _Open(spec, engine, since, replace(self._tally), engine.usage().gpus)
        return self._open.engine

    def _close(self) -> None:
        if self._open is not None:
            opened, self._open = self._open, None
            usage = opened.engine.usage()
            opened.engine.close()
            held = time.monotonic() - opened.since
            self._sessions.append(Session(opened.spec.prices, usage, held, self._tally.since(opened.before)))


def _came_to_nothing(found: object) -> bool:
    """Whether this answer or prediction holds nothing that a stage can keep."""
    answer = found[1] if isinstance(found, tuple) else found  # pyright: ignore[reportUnknownVariableType]
    return isinstance(answer, Generation | Prediction) and answer.outcome not in USABLE
