"""One copy of an engine, in a process of its own: what a Ray actor of replicas.py runs on its node."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from tasks.errors import EngineError
from tasks.models.engines.engine import Engine, ManyAdapters, Usage, Workplace, open_engine
from tasks.models.engines.ray.cluster import Ground
from tasks.models.engines.spec import EngineSpec
from tasks.records import Generation, Request

_WAIT_SECONDS = 0.2
"""An exchange without an answer ends after this, so that more work can come."""


@dataclass(frozen=True)
class Opened:
    """A copy that is ready."""

    fingerprint: str
    notes: tuple[str, ...]
    node: str


@dataclass(frozen=True)
class Block:
    """Requests handed over together, and the adapter that is to answer them (engines with several)."""

    adapter: str | None
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Answers:
    """What was answered since the last exchange."""

    generations: tuple[Generation, ...]


class Replica:
    """The engine works in a thread; `exchange` hands it blocks and takes answers away. One call at a time."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Block | None] = SimpleQueue()
        self._outbox: SimpleQueue[Generation | BaseException] = SimpleQueue()
        self._owed = 0
        self._engine: Engine | None = None
        self._adapter: str | None = None
        self._continuous = False

    def open(self, spec: EngineSpec, place: Workplace, ground: Ground, continuous: bool) -> Opened:
        """Open the engine; raises EngineError with the mend. `continuous`: blocks are strung together to a stream."""
        ground.enter()
        node = socket.gethostname()
        # processes of two machines, or containers, may have the same number, and so the same log
        self._engine = open_engine(spec, replace(place, logs=place.logs / node))
        self._adapter, self._continuous = spec.adapter, continuous
        threading.Thread(target=self._work, name="replica", daemon=True).start()
        return Opened(self._engine.fingerprint, self._engine.notes, node)

    def exchange(self, blocks: list[Block], ends: bool) -> Answers:
        """Take `blocks`, and give what was answered: at least one answer, unless none comes in a moment.

        `ends`: nothing comes after these blocks for now. Raises EngineError when the engine has died.
        """
        for block in blocks:
            self._owed += len(block.requests)
            self._inbox.put(block)
        if ends:
            self._inbox.put(None)
        found: list[Generation | BaseException] = []
        with suppress(Empty):
            if self._owed:
                found.append(self._outbox.get(timeout=_WAIT_SECONDS))
            while True:
                found.append(self._outbox.get_nowait())
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
        self._owed -= len(found)
        return Answers(tuple(answer for answer in found if isinstance(answer, Generation)))

    def usage(self) -> Usage:
        """How busy the engine was."""
        return self._engine.usage() if self._engine is not None else Usage()

    def close(self) -> None:
        """End the engine."""
        if self._engine is not None:
            self._engine.close()

    def _work(self) -> None:
        engine = self._engine
        assert engine is not None
        try:
            while True:
                if (block := self._inbox.get()) is None:
                    continue
                if block.adapter != self._adapter:
                    if not isinstance(engine, ManyAdapters):
                        raise EngineError(f"{engine.fingerprint} serves one adapter only")
                    engine.turn_to(block.adapter)
                    self._adapter = block.adapter
                for generation in engine.generate(self._stream(block)):
                    self._outbox.put(generation)
        except BaseException as error:  # raised where the answers are fetched
            self._outbox.put(error)

    def _stream(self, block: Block) -> Iterator[Request]:
        yield from block.requests
        while self._continuous and (after := self._inbox.get()) is not None:
            yield from after.requests
