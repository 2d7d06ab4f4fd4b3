# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Any OpenAI-compatible server, kept full: a fixed number of requests in flight, whatever each of them takes.

The caller's thread draws requests from the stream and prepares them; one event loop in a thread of its own keeps the
connections busy. There is no barrier: a slow answer holds up nothing but itself.
"""

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import uvloop
from transformers import AutoProcessor  # pyright: ignore[reportMissingTypeStubs]

from tasks.errors import EngineError
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import model_identity
from tasks.models.engines.server.capabilities import describe, find_capabilities
from tasks.models.engines.server.client import Client, Revive, key_of
from tasks.models.engines.server.conversation import Conversation, Prepared
from tasks.models.engines.spec import EngineSpec
from tasks.models.unanswered import end_unanswered
from tasks.records import Generation, Request

T = TypeVar("T")

_MOST_READY = 32
"""Requests prepared ahead of those in flight: enough to hide the preparing, few enough to hold their images."""
_SPARE_WORKERS = 8
"""Workers beyond the target: while one reads an answer, another's request already takes its place in flight."""


class ServerEngine:
    """Answers requests over HTTP; raises EngineError, with the mend, when the server can't be used at all.

    `base_urls` of the spec share the load. `served_name` is the model's name there (default: the adapter's
    or model's own). `revive`, if given, is asked to bring a dead server back. `key` is sent in place of
    the environment's. `kind` begins the fingerprint.
    """

    def __init__(
        self, spec: EngineSpec, place: Workplace, *,
        served_name: str | None = None, revive: Revive | None = None, key: str = "", kind: str = "server",
    ) -> None:  # fmt: skip
        key = key or key_of(spec)
        self._spec, self._kind, self._images = spec, kind, place.images
        self._seconds = self._starved = 0.0
        self._openers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server-engine", daemon=True)
        self._thread.start()
        self._client = self._call(_connect(spec, key, revive))
        name = served_name or spec.adapter or spec.model
        try:
            self._processor = _processor(spec)
            tokenizer = None if self._processor is None else self._processor.tokenizer
            self.capabilities = self._call(find_capabilities(self._client, spec, name, tokenizer, place.images.folder))
            self._client.busy_seconds = 0.0  # the probes' own
            self._talk_to(name, spec.adapter)
        except BaseException:
            self.close()
            raise
        self.notes = describe(self.capabilities, tokenizer=tokenizer is not None)

    def _talk_to(self, name: str, adapter: str | None) -> None:
        """Ask what is served as `name` from now on: the model with `adapter`, or without one."""
        self.fingerprint = f"{self._kind}/{model_identity(self._spec.model_copy(update={'adapter': adapter}))}"
        self._conversation = Conversation(self._client, name, self.capabilities, self._processor, self._images)

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer each request once, unordered; raises EngineError when no server answers any more."""
        if not self._thread.is_alive():
            raise EngineError("the engine is closed")
        crew = _Crew(self._conversation, self.fingerprint, self._spec.concurrency)
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
        return Usage(self._spec.concurrency, self._client.busy_seconds, self._seconds, self._starved)

    def close(self) -> None:
        """Close all connections; safe to call twice."""
        self._openers.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive():
            self._call(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _hand_over(self, crew: "_Crew", request: Request) -> None:
        def prepare() -> None:
            with crew.answering(request):
                self._loop.call_soon_threadsafe(crew.ready.put_nowait, crew.conversation.prepare(request))

        if request.images:
            self._openers.submit(prepare)
        else:
            prepare()

    def _count_starving(self, since: float) -> None:
        if self._client.in_flight < self._spec.concurrency:
            self._starved += time.monotonic() - since

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Crew:
    """The workers of one stream. Lives in the event loop; `results` is read by the caller's thread."""

    def __init__(self, conversation: Conversation, fingerprint: str, concurrency: int) -> None:
        self.conversation, self._fingerprint = conversation, fingerprint
        self.results: SimpleQueue[Generation | EngineError] = SimpleQueue()
        self.ready: asyncio.Queue[Prepared] = asyncio.Queue()
        self.ahead = concurrency + _SPARE_WORKERS + min(_MOST_READY, concurrency)
        self._count = concurrency + _SPARE_WORKERS
        self._workers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._count)]

    async def stop(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    @contextmanager
    def answering(self, request: Request) -> Generator[None]:
        """Make an error within the block the result of `request`."""
        began = time.monotonic()
        try:
            yield
        except EngineError as error:  # the server, or the image cache's disk: that concerns every item
            self.results.put(error)
        except Exception as error:  # met by this item only
            self.results.put(end_unanswered(request, error, self._fingerprint, time.monotonic() - began))

    async def _work(self) -> None:
        while True:
            prepared = await self.ready.get()
            began = time.monotonic()
            with self.answering(prepared.request):
                answer = await self.conversation.answer(prepared)
                counted = {"engine": self._fingerprint, "seconds": time.monotonic() - began}
                self.results.put(answer.model_copy(update=counted))


async def _connect(spec: EngineSpec, key: str, revive: Revive | None) -> Client:
    return Client(spec, key, revive)  # its connections belong to the loop that makes them


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
