# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Any OpenAI-compatible server, kept full: a fixed number of requests in flight, whatever each of them takes.

The caller's thread draws requests from the stream and prepares them; one event loop in a thread of its own keeps the
connections busy. There is no barrier: a slow answer holds up nothing but itself.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import uvloop
from transformers import AutoProcessor  # pyright: ignore[reportMissingTypeStubs]

from tasks.errors import EngineError
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import model_identity
from tasks.models.engines.server.capabilities import describe, find_capabilities
from tasks.models.engines.server.client import Client, Keeper
from tasks.models.engines.server.conversation import Conversation, Prepared
from tasks.models.engines.spec import EngineSpec
from tasks.records import Generation, Outcome, Request

T = TypeVar("T")

_MOST_READY = 32
"""Requests prepared ahead of those in flight: enough to hide the preparing, few enough to hold their images."""
_SPARE_WORKERS = 8
"""Workers beyond the target: while one reads an answer, another's request already takes its place in flight."""


class ServerEngine:
    """Answers requests over HTTP; raises EngineError, with the mend, when the server can't be used at all.

    `base_urls` (default: the spec's) share the load. `served_name` is the model's name there (default: the adapter's
    or model's own). `keeper`, if given, is asked to bring a dead server back. `key` is sent in place of
    the environment's.
    """

    def __init__(
        self,
        spec: EngineSpec,
        place: Workplace,
        *,
        base_urls: Sequence[str] | None = None,
        served_name: str | None = None,
        keeper: Keeper | None = None,
        key: str = "",
    ) -> None:
        self._spec = spec
        self._seconds = self._starved = 0.0
        self._openers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server-engine", daemon=True)
        self._thread.start()
        self._client: Client | None = None
        model = served_name or spec.adapter or spec.model
        self.fingerprint = f"server/{model_identity(spec)}"
        try:
            processor = _processor(spec)
            tokenizer = None if processor is None else processor.tokenizer
            self._client = self._call(_connect(spec, base_urls or spec.base_urls, keeper, key))
            can = self._call(find_capabilities(self._client, spec, model, tokenizer, place.images.folder))
            self._client.busy_seconds = 0.0  # the probes' own
        except BaseException:
            self.close()
            raise
        self.capabilities = can
        self.notes = describe(can, tokenizer=tokenizer is not None)
        self._conversation = Conversation(self._client, model, can, processor, place.images, self.fingerprint)

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer each request once, unordered; raises EngineError when no server answers any more."""
        if self._client is None:
            raise EngineError("the engine is closed")
        crew = _Crew(self._client, self._conversation, self._spec.concurrency)
        stream, out, ended = iter(requests), 0, False
        began = time.monotonic()
        try:
            self._call(crew.start())
            while True:
                while not ended and out < crew.ahead:
                    since = time.monotonic()
                    request = next(stream, None)
                    self._count_starving(since)
                    if request is None:
                        ended = True
                    else:
                        self._hand_over(crew, request)
                        out += 1
                if not out:
                    return
                answer = crew.results.get()
                if isinstance(answer, BaseException):
                    raise answer
                out -= 1
                since = time.monotonic()
                yield answer
                self._count_starving(since)
        finally:
            self._seconds += time.monotonic() - began
            if self._thread.is_alive():
                self._call(crew.stop())

    def usage(self) -> Usage:
        """How busy the server was kept by us."""
        if self._client is None:
            return Usage(target=self._spec.concurrency)
        self._client.settle()
        return Usage(self._spec.concurrency, self._client.busy_seconds, self._seconds, self._starved)

    def close(self) -> None:
        """Close all connections; safe to call twice."""
        self._openers.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive():
            if self._client is not None:
                self._call(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        self._client = None

    def _hand_over(self, crew: "_Crew", request: Request) -> None:
        def prepare() -> None:
            try:
                prepared = self._conversation.prepare(request)
            except EngineError as error:  # the image cache can't be written: that concerns every item
                crew.results.put(error)
                return
            except Exception as error:  # a defect of ours or of a library, met by this item: the others go on
                prepared = self._conversation.ended(request, Outcome.FAILED, f"{type(error).__name__}: {error}")
            self._loop.call_soon_threadsafe(crew.take, prepared)

        if request.images:
            self._openers.submit(prepare)
        else:
            prepare()

    def _count_starving(self, since: float) -> None:
        if self._client is not None and self._client.in_flight < self._spec.concurrency:
            self._starved += time.monotonic() - since

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Crew:
    """The workers of one stream. Lives in the event loop; `results` is read by the caller's thread."""

    def __init__(self, client: Client, conversation: Conversation, concurrency: int) -> None:
        self.results: SimpleQueue[Generation | BaseException] = SimpleQueue()
        self.ahead = concurrency + _SPARE_WORKERS + min(_MOST_READY, concurrency)
        self._client, self._conversation = client, conversation
        self._count = concurrency + _SPARE_WORKERS
        self._ready: deque[Prepared] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._count)]

    async def stop(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def take(self, prepared: Prepared | Generation) -> None:
        """A prepared request for the next free worker."""
        if isinstance(prepared, Generation):
            self.results.put(prepared)
            return
        self._ready.append(prepared)
        while self._idle:
            free = self._idle.popleft()
            if not free.done():
                free.set_result(None)
                break

    async def _work(self) -> None:
        while True:
            while not self._ready:
                free = asyncio.get_running_loop().create_future()
                self._idle.append(free)
                await free
            prepared = self._ready.popleft()
            try:
                self.results.put(await self._conversation.answer(prepared))
            except EngineError as error:
                self.results.put(error)
            except Exception as error:  # met by this item only
                detail = f"{type(error).__name__}: {error}"
                self.results.put(self._conversation.ended(prepared.request, Outcome.FAILED, detail))


async def _connect(spec: EngineSpec, base_urls: Sequence[str], keeper: Keeper | None, key: str) -> Client:
    return Client(spec, base_urls, keeper, key)


def _processor(spec: EngineSpec) -> Any:
    """The model's processor if it is at hand; None where it is not (a server's own name for a model is no path)."""
    name = spec.tokenizer or spec.model
    try:
        return AutoProcessor.from_pretrained(
            name,
            revision=None if spec.tokenizer else spec.revision,
            trust_remote_code=spec.trust_remote_code,
            # only a tokenizer that was asked for is worth a download
            local_files_only=spec.tokenizer is None or Path(name).is_dir(),
        )
    except Exception as error:
        if spec.tokenizer is None:
            return None
        raise EngineError(f"cannot load the tokenizer {name}: {error}; set `tokenizer` to its folder") from error
