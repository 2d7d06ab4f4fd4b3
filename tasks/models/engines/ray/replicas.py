# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
# (ray's handles and references have no types of their own)
"""An engine in several copies on a Ray cluster, behind the protocol of one.

Each copy is an actor with a process of its own: on a GPU machine a managed vLLM, on others the local or scripted
engine. Requests go out, and only answers come back, so the ledger keeps its single writer. A copy whose process or node
dies loses nothing: what it had in flight is asked of the others, and a new one is opened where there is room.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import EngineError
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import model_identity
from tasks.models.engines.ray.cluster import Ground, RayRunner, last_line
from tasks.models.engines.ray.replica import Answers, Block, Opened, Replica
from tasks.models.engines.spec import EngineSpec
from tasks.records import Generation, Request

_MOST_DEATHS = 3
"""Copies that may die one after another without an answer in between: some item is likely to kill each."""
_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 60.0


@dataclass(frozen=True)
class Feed:
    """How requests are handed to a copy."""

    block: int
    """Requests at a time. The local engine's window, so that its batches are the same however many copies there are."""
    ahead: int
    """Requests that a copy has at most."""
    continuous: bool
    """The engine keeps a stream of its own full, for which blocks are strung together; else a block is a stream."""


@dataclass
class _Copy:
    number: int
    spec: EngineSpec
    """As it was opened."""
    actor: Any = None
    """None: to be opened when there is something to ask."""
    call: Any = None
    """The reference of what it was asked to do and has not answered yet."""
    opened: Opened | None = None
    blocks: list[dict[str, Request]] = field(default_factory=list[dict[str, Request]])
    """What it has in flight by key, block for block."""
    streaming: bool = False
    deaths: int = 0
    """Since its last answer."""

    @property
    def load(self) -> int:
        return sum(map(len, self.blocks))


class ReplicatedEngine:
    """Spreads a stream over copies of the engine that `spec` names and keeps each full."""

    def __init__(
        self, ray: Any, spec: EngineSpec, place: Workplace, runner: RayRunner, ground: Ground, feed: Feed
    ) -> None:
        """Open the copies and wait for the first; raises EngineError, with the mend, when none can be opened.

        `ray` is the module, connected to the cluster (`join_cluster`).
        """
        self._ray, self._feed = ray, feed
        self._spec, self._place, self._runner, self._ground = spec, place, runner, ground
        # no CPU: a stage has shards, which need one each, while its engine is open
        self._actor = ray.remote(Replica).options(
            num_cpus=0, num_gpus=runner.gpus_per_replica, scheduling_strategy="SPREAD", max_restarts=0
        )
        self._again: deque[list[Request]] = deque()
        self._more, self._alone_since = False, time.monotonic()
        self._copies = [_Copy(number, spec) for number in range(1, runner.replicas + 1)]
        self.fingerprint = ""
        try:
            for copy in self._copies:
                self._open(copy)
            while not any(copy.opened for copy in self._copies):
                for _ in self._collected():
                    raise AssertionError("an answer before any question")
        except BaseException:
            self.close()
            raise
        first = next(copy.opened for copy in self._copies if copy.opened)
        self.notes = (*first.notes, f"{runner.replicas} copies on the Ray cluster")

    def turn_to(self, adapter: str | None) -> None:
        """Answer with another of the spec's adapters (None: with the model itself) from now on."""
        stem = _stem(self.fingerprint, self._spec)
        self._spec = self._spec.model_copy(update={"adapter": adapter})
        self.fingerprint = stem + model_identity(self._spec)

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer each request once, unordered; raises EngineError when no copy lives and none can be opened."""
        stream, self._more = iter(requests), True
        for copy in self._copies:
            if copy.actor is None:
                self._open(copy)
        try:
            while True:
                for copy in self._copies:
                    if copy.opened and copy.call is None:
                        self._hand_out(copy, stream)
                if not self._more and not self._again and not any(copy.blocks for copy in self._copies):
                    return
                yield from self._collected()
        finally:  # whoever broke off does not want what is still in flight
            self._again.clear()
            for copy in self._copies:
                if copy.blocks:
                    self._end(copy)

    def usage(self) -> Usage:
        """How busy the living copies were; of one that died, nothing is known."""
        living = [copy.actor.usage.remote() for copy in self._copies if copy.opened]
        known, _ = self._ray.wait(living, num_returns=len(living), timeout=10.0) if living else ([], [])
        found: list[Usage] = []
        for reference in known:
            try:
                found.append(self._ray.get(reference))
            except self._ray.exceptions.RayError:
                continue
        return Usage(
            target=sum(u.target for u in found) or 1,
            busy=sum(u.busy for u in found),
            seconds=max((u.seconds for u in found), default=0.0),
            starved=sum(u.starved for u in found) / max(len(found), 1),
            gpus=self._runner.gpus_per_replica * len(self._copies),
        )

    def close(self) -> None:
        """End all copies with their servers; safe to call twice."""
        closing = [copy.actor.close.remote() for copy in self._copies if copy.opened]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        for copy in self._copies:
            self._end(copy)
        self._copies = []

    def _end(self, copy: _Copy) -> None:
        if copy.actor is not None:
            self._ray.kill(copy.actor)
        copy.actor = copy.call = copy.opened = None
        copy.blocks, copy.streaming = [], False

    def _open(self, copy: _Copy) -> None:
        copy.actor, copy.spec = self._actor.remote(), self._spec
        copy.call = copy.actor.open.remote(self._spec, self._place, self._ground, self._feed.continuous)

    def _hand_out(self, copy: _Copy, stream: Iterator[Request]) -> None:
        """Fill the copy up, and ask it for what it has answered meanwhile."""
        blocks: list[Block] = []
        while copy.load + self._feed.block <= self._feed.ahead and (block := self._next_block(stream)):
            copy.blocks.append({request.key: request for request in block})
            blocks.append(Block(self._spec.adapter, tuple(block)))
        copy.streaming = self._feed.continuous and (copy.streaming or bool(blocks))
        ends = copy.streaming and not self._more and not self._again
        if copy.blocks or ends:
            copy.call = copy.actor.exchange.remote(blocks, ends)
            copy.streaming = copy.streaming and not ends

    def _next_block(self, stream: Iterator[Request]) -> list[Request]:
        if self._again:
            return self._again.popleft()
        block: list[Request] = []
        while self._more and len(block) < self._feed.block:
            if (request := next(stream, None)) is None:
                self._more = False
            else:
                block.append(request)
        return block

    def _collected(self) -> Iterator[Generation]:
        """What one copy answers, waited for; a copy that was opened or lost meanwhile is seen to."""
        calls = {copy.call: copy for copy in self._copies if copy.call is not None}
        done, _ = self._ray.wait(list(calls), timeout=_POLL_SECONDS)
        if any(copy.opened for copy in self._copies):
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > self._spec.start_seconds:
            raise EngineError(
                f"no copy of the engine opened within {self._spec.start_seconds:.0f} s; the cluster has "
                f"{_resources(self._ray)}: add nodes, lower `gpus_per_replica`, or raise `start_seconds`"
            )
        for reference in done:
            copy = calls[reference]
            copy.call = None
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise EngineError(str(cause) if isinstance(cause, EngineError) else last_line(error)) from error
            except self._ray.exceptions.RayError as error:
                self._lost(copy, error)
            else:
                if isinstance(answer, Opened):
                    self._take_in(copy, answer)
                else:
                    yield from self._received(copy, answer)

    def _take_in(self, copy: _Copy, opened: Opened) -> None:
        self.fingerprint = self.fingerprint or opened.fingerprint
        # one that was being opened when another adapter's turn came: each block names its own
        if _stem(opened.fingerprint, copy.spec) != _stem(self.fingerprint, self._spec):
            raise EngineError(
                f"Ray nodes answer with different engines: {self.fingerprint} and, on {opened.node}, "
                f"{opened.fingerprint}: install the same versions and the same model on all"
            )
        copy.opened = opened

    def _received(self, copy: _Copy, answers: Answers) -> Iterator[Generation]:
        for generation in answers.generations:
            copy.deaths = 0
            for block in copy.blocks:
                if block.pop(generation.key, None) is not None:
                    break
            else:
                raise EngineError(f"{self.fingerprint} answered {generation.key}, which it was not asked")
            yield generation
        copy.blocks = [block for block in copy.blocks if block]

    def _lost(self, copy: _Copy, error: Exception) -> None:
        copy.deaths += 1
        where = copy.opened.node if copy.opened else "a node that is not known"
        if copy.deaths >= _MOST_DEATHS:
            raise EngineError(
                f"copy {copy.number} of the engine died {copy.deaths} times in a row without an answer, last on "
                f"{where}: {last_line(error)}; see its log, and Ray's, there"
            ) from error
        self._again.extend(list(block.values()) for block in copy.blocks)
        self._end(copy)  # it may only be out of reach
        self._open(copy)


def _stem(fingerprint: str, spec: EngineSpec) -> str:
    """A fingerprint without the model and adapter that it ends with."""
    return fingerprint.removesuffix(model_identity(spec))


def _resources(ray: Any) -> str:
    found = ray.cluster_resources()
    return f"{found.get('CPU', 0):.0f} CPUs and {found.get('GPU', 0):.0f} GPUs"
