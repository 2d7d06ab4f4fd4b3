"""Ask any OpenAI-compatible server, keeping as many requests in flight as it bears, however long each takes.

The caller's thread reads requests from the stream, a few threads prepare images, and an event loop in another thread
keeps the connections busy. There are no batches, so a slow answer does not delay other answers.
"""

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import uvloop

from tasks.errors import EngineError
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import identify_model
from tasks.models.engines.server.capabilities import describe_gaps, find_capabilities
from tasks.models.engines.server.chat import Capabilities
from tasks.models.engines.server.client import Client, Revive, read_api_key
from tasks.models.engines.server.conversation import Conversation, Prepared, ProbeFailed
from tasks.models.engines.server.pacing import Patience
from tasks.models.engines.server.video_probe import probe_videos
from tasks.models.engines.spec import EngineSpec
from tasks.models.processor import read_processor
from tasks.models.qwen_vl import find_patch_size
from tasks.models.unanswered import make_unanswered
from tasks.records import Generation, Request

T = TypeVar("T")

_MOST_READY = 32
"""Requests prepared ahead of those in flight: enough to hide the time of preparing, few enough to fit into memory."""
_SPARE_WORKERS = 8
"""Workers beyond `concurrency`: while one worker reads an answer, another one's request is already in flight."""
_PATIENCE = Patience()


class ServerEngine:
    """Answers requests over HTTP, distributing them over the spec's `base_urls`."""

    def __init__(
        self, spec: EngineSpec, place: Workplace, *,
        served_name: str | None = None, revive: Revive | None = None, key: str = "", kind: str = "server",
        patience: Patience = _PATIENCE,
    ) -> None:  # fmt: skip
        """Connect, and find out what the server can do; raise EngineError, saying how to fix it, when that fails.

        `served_name` is the model's name on the server (default: the adapter's name or else the model's). `revive`
        restarts a dead server. `key` replaces the API key from the environment. The fingerprint begins with `kind`.
        """
        key = key or read_api_key(spec)
        self._spec = spec
        self._kind = kind
        self._images = place.images
        self._seconds = self._starved = 0.0
        self._openers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server-engine", daemon=True)
        self._thread.start()
        self._client = self._run(_connect(spec, key, revive, patience))
        name = served_name or spec.adapter or spec.model
        try:
            self._processor = _read_processor(spec)
            self._patch_size = find_patch_size(spec)
            tokenizer = None if self._processor is None else self._processor.tokenizer
            self.capabilities = self._run(find_capabilities(self._client, spec, name, tokenizer, place.images.folder))
            if place.most_videos and tokenizer is not None:
                self.capabilities = self._find_video_capability(name)
            self._client.forget_times()
            self._switch_model(name, spec.adapter)
        except BaseException:
            self.close()
            raise
        has_videos = place.most_videos > 0
        self.notes = describe_gaps(self.capabilities, spec, tokenizer=tokenizer is not None, videos=has_videos)

    def _find_video_capability(self, name: str) -> Capabilities:
        arguments = (self._spec, self._processor, self._patch_size, self._images.folder)
        surplus = self._run(probe_videos(self._client, name, *arguments))
        return replace(self.capabilities, videos=surplus is not None, surplus=surplus or 0)

    def _switch_model(self, name: str, adapter: str | None) -> None:
        """Ask what is served as `name`, which is the model with `adapter` or without one, from now on."""
        self.fingerprint = f"{self._kind}/{identify_model(self._spec.model_copy(update={'adapter': adapter}))}"
        self._conversation = self.make_conversation(name, self.capabilities)

    def make_conversation(self, name: str, can: Capabilities) -> Conversation:
        """Return what takes requests to what is served as `name`, on a server that can do `can`."""
        return Conversation(self._client, name, can, self._processor, self._patch_size, self._images)

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Yield one generation per request, in any order; raise EngineError when no address answers any more."""
        if not self._thread.is_alive():
            raise EngineError("the engine is closed")
        pool = _WorkerPool(self._conversation, self.fingerprint, self._spec.concurrency)
        stream = iter(requests)
        out = 0
        ended = False
        began = time.monotonic()
        try:
            self._run(pool.start())
            while True:
                while not ended and out < pool.most_waiting:
                    since = time.monotonic()
                    request = next(stream, None)
                    self._count_starving(since)
                    if request is None:
                        ended = True
                    else:
                        self._submit(pool, request)
                        out += 1
                if not out:
                    return
                answer = pool.results.get()
                if isinstance(answer, BaseException):
                    raise answer
                out -= 1
                since = time.monotonic()
                yield answer
                self._count_starving(since)
        finally:
            self._seconds += time.monotonic() - began
            if self._thread.is_alive():
                self._run(pool.stop())

    def usage(self) -> Usage:
        """Return how busy the connections to the server have been."""
        return Usage(self._spec.concurrency, self._client.busy_seconds, self._seconds, self._starved)

    def close(self) -> None:
        """Close all connections; safe to call twice."""
        self._openers.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive():
            self._run(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _submit(self, pool: "_WorkerPool", request: Request) -> None:
        def prepare() -> None:
            with pool.catch_errors(request):
                self._loop.call_soon_threadsafe(pool.ready.put_nowait, pool.conversation.prepare(request))

        if request.images or request.videos:
            self._openers.submit(prepare)
        else:
            prepare()

    def _count_starving(self, since: float) -> None:
        if self._client.in_flight < self._client.limit.now:
            self._starved += time.monotonic() - since

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _WorkerPool:
    """The workers for one stream of requests, in the event loop; the caller's thread reads `results`."""

    def __init__(self, conversation: Conversation, fingerprint: str, concurrency: int) -> None:
        self.conversation = conversation
        self._fingerprint = fingerprint
        self.results: SimpleQueue[Generation | EngineError] = SimpleQueue()
        self.ready: asyncio.Queue[Prepared] = asyncio.Queue()
        self.most_waiting = concurrency + _SPARE_WORKERS + min(_MOST_READY, concurrency)
        self._count = concurrency + _SPARE_WORKERS
        self._workers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._count)]

    async def stop(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    @contextmanager
    def catch_errors(self, request: Request) -> Generator[None]:
        """Context manager: record an error raised in the block as the result of `request`."""
        began = time.monotonic()
        try:
            yield
        except EngineError as error:  # of the server or the image cache: no request can be answered
            self.results.put(error)
        except Exception as error:  # concerns this request only
            self.results.put(make_unanswered(request, error, self._fingerprint, time.monotonic() - began))

    async def _work(self) -> None:
        while True:
            prepared = await self.ready.get()
            began = time.monotonic()
            with self.catch_errors(prepared.request):
                try:
                    answer = await self.conversation.answer(prepared)
                except ProbeFailed as failed:
                    self.ready.put_nowait(failed.prepared)  # behind the others: the server may have recovered by then
                else:
                    counted = {"engine": self._fingerprint, "seconds": time.monotonic() - began}
                    self.results.put(answer.model_copy(update=counted))


async def _connect(spec: EngineSpec, key: str, revive: Revive | None, patience: Patience) -> Client:
    return Client(spec, key, revive, patience)  # within the event loop, to which its connections belong


def _read_processor(spec: EngineSpec) -> Any:
    """Return the model's processor; None if it is not on this machine (a server may have a name of its own)."""
    name = spec.tokenizer or spec.model
    try:
        return read_processor(
            name,
            revision=None if spec.tokenizer else spec.revision,
            trust_remote_code=spec.trust_remote_code,
            # only a tokenizer that the configuration names is downloaded
            local_files_only=spec.tokenizer is None or Path(name).is_dir(),
        )
    except Exception as error:
        if spec.tokenizer is None:
            return None
        raise EngineError(f"cannot load the tokenizer {name}: {error}; set `tokenizer` to its folder") from error
