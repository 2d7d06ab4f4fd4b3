"""What the stub server does with a request: see `stub_server`."""

import asyncio
import math
import os
import random
import socket
import struct
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from tests.stub_answers import Fault, Gap, Refused, Thinks, check, completion, hashed, too_long
from tests.stub_book import Book

CRASHED = 77
"""Exit status of a crash on purpose."""


@dataclass(frozen=True)
class Options:
    """How the server behaves; the default is instant and flawless."""

    model: str = "stub"
    median_seconds: float = 0.0
    """Of the log-normal latency; 0: answers at once."""
    sigma: float = 0.0
    seed: int = 0
    slots: int = 0
    """Requests that are worked on at full speed; with more in flight, all become slower. 0: any number."""
    gateway_seconds: float = 0.0
    """A proxy in front answers 504 after so long, and the work is lost; 0: never."""
    most_in_flight: int = 0
    """More are refused with 429; 0: any number."""
    faults: dict[Fault, float] = field(default_factory=dict[Fault, float])
    """Probability of each, an attempt."""
    most_faults: int = 2
    always: dict[str, Fault] = field(default_factory=dict[str, Fault])
    """Items that are never answered rightly, by name."""
    spare_probes: bool = True
    """No faults for requests that name no item."""
    stall_seconds: float = 30.0
    retry_after_seconds: float = 1.0
    crash_every: int = 0
    """The process ends at every so many requests and is back after `down_seconds`; 0: never."""
    down_seconds: float = 0.2
    gaps: frozenset[Gap] = frozenset()
    unguided: str = ""
    """What the model says where nothing constrains it."""
    thinks: Thinks = Thinks.NEVER
    media: str | None = None
    """Folder below which `file://` images are read; None: nowhere."""
    most_characters: int = 0
    """Longest prompt; 0: any."""
    api_key: str | None = None
    """Bearer token without which everything is refused with 401."""
    journal: str | None = None
    """File of the books; needed where they must outlive a crash."""


class Stub:
    """The request handler; `aiohttp.web.Server` without routes, because a route costs as much as the rest."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.book = Book(Path(options.journal) if options.journal else None)
        self._since_start = 0

    async def handle(self, request: Any) -> Any:
        """Answer one HTTP request."""
        path = request.path
        if path == "/stats":
            return self._json(self.book.figures(int(request.query.get("target", 0))))
        if path == "/seen":
            return self._json(self.book.seen())
        if path in ("/mark", "/clear"):
            self.book.mark() if path == "/mark" else self.book.clear()
            return self._json({})
        if path == "/health":
            return self._json({})
        if self.options.api_key and request.headers.get("Authorization") != f"Bearer {self.options.api_key}":
            return self._error(401, "Unauthorized")
        if path == "/v1/models":
            return self._json({"object": "list", "data": [{"id": self.options.model, "object": "model"}]})
        if path != "/v1/chat/completions":
            return self._error(404, "Not Found")
        raw = await request.read()
        item = _item(raw)
        fault = self._fault(item)
        self.book.receive(item, fault.value if fault else "")
        self._since_start += 1
        if self.options.crash_every and self._since_start >= self.options.crash_every:
            os._exit(CRASHED)
        self.book.enter()
        answered = False
        try:
            response = await self._answer(request, raw, item, fault)
            answered = True
            return response
        finally:
            self.book.leave(answered=answered)

    def _fault(self, item: str) -> Fault | None:
        options = self.options
        if item in options.always:
            return options.always[item]
        if not options.faults or (not item and options.spare_probes):
            return None
        if item and self.book.faulted[item] >= options.most_faults:
            return None
        drawn = hashed(options.seed, item, self.book.attempt(item)) / 2**64
        for fault, probability in options.faults.items():
            drawn -= probability
            if drawn < 0:
                # A probe asks what the server can do: an answer to that is a gap, not a passing fault.
                return None if not item and fault is Fault.IGNORED_FIELDS else fault
        return None

    async def _answer(self, request: Any, raw: bytes, item: str, fault: Fault | None) -> Any:
        options = self.options
        if 0 < options.most_in_flight < self.book.in_flight:
            return self._error(429, "too many requests in flight")
        if options.median_seconds:
            draw = random.Random(f"{options.seed}/{item}/{self.book.attempt(item)}").gauss(0, options.sigma)
            try:
                async with asyncio.timeout(options.gateway_seconds or None):
                    await self._work(options.median_seconds * math.exp(draw))
            except TimeoutError:
                return self._error(504, "Gateway Time-out")
        if fault is Fault.STALL:
            await asyncio.sleep(options.stall_seconds)
        if fault is not None and fault in _BEFORE_THE_ANSWER:
            return self._misbehave(request, item, fault)
        body = orjson.loads(raw)
        gaps = frozenset(Gap) - {Gap.N_REFUSED, Gap.THINKING_REFUSED} if fault is Fault.IGNORED_FIELDS else options.gaps
        try:
            if fault is Fault.TOO_LONG:
                raise too_long(99_999, 32_768)
            check(body, gaps, options.media, options.most_characters)
        except Refused as refusal:
            return self._error(400, str(refusal), refusal.param)
        answer = completion(body, item, gaps, options.unguided, options.thinks)
        if fault is Fault.NO_CHOICES_KEY:
            answer = {"result": answer["choices"], "usage": answer["usage"]}
        elif fault is Fault.EMPTY_CHOICES:
            answer["choices"] = []
        elif fault is Fault.NULL_CONTENT:
            for choice in answer["choices"]:
                choice["message"]["content"] = None
        elif fault is Fault.EXTRA_CHOICES:
            answer["choices"] = [choice for choice in answer["choices"] for _ in range(2)]
        elif fault is Fault.HALF_BODY:
            return self._half(request, orjson.dumps(answer))
        return self._json(answer)

    async def _work(self, seconds: float) -> None:
        """Work for so long at full speed, and longer while there are more in flight than slots."""
        if not self.options.slots:
            await asyncio.sleep(seconds)
        while self.options.slots and seconds > 1e-3:
            speed = min(1.0, self.options.slots / self.book.in_flight)
            began = time.monotonic()
            await asyncio.sleep(min(seconds / speed, 0.1))
            seconds -= (time.monotonic() - began) * speed

    def _misbehave(self, request: Any, item: str, fault: Fault) -> Any:
        wait = self.options.retry_after_seconds
        if fault is Fault.RESET:
            # Without lingering, closing sends a reset and not an orderly end.
            raw_socket = request.transport.get_extra_info("socket")
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.abort()
            return web.Response()
        if fault is Fault.GARBAGE:
            return web.Response(body=b'{"choices": [{"mess', content_type="application/json")
        if fault is Fault.BAD_REQUEST:
            return self._error(400, "this request cannot be processed")
        if fault is Fault.BUSY_429:
            self.book.told_to_wait(item, time.time() + wait)
            return self._error(429, "slow down", headers={"Retry-After": f"{wait:g}"})
        if fault is Fault.BUSY_503_DATE:
            until = math.ceil(time.time() + wait)
            self.book.told_to_wait(item, until)
            return self._error(503, "come back later", headers={"Retry-After": formatdate(until, usegmt=True)})
        if fault is Fault.BUSY_503:
            return web.Response(status=503, body=b"<html>503 Service Unavailable</html>", content_type="text/html")
        return self._error(500, "Internal Server Error")

    def _half(self, request: Any, body: bytes) -> Any:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        request.transport.write(head.encode() + body[: len(body) // 2])
        request.transport.close()
        return web.Response()

    def _json(self, value: Any) -> Any:
        import orjson

        return web.Response(body=orjson.dumps(value), content_type="application/json")

    def _error(self, status: int, message: str, param: str | None = None, headers: Any = None) -> Any:
        body = {"error": {"message": message, "type": "StubError", "param": param, "code": status}}
        return web.json_response(body, status=status, headers=headers)


_BEFORE_THE_ANSWER = frozenset(
    {
        *(Fault.ERROR_500, Fault.BUSY_503, Fault.BUSY_503_DATE, Fault.BUSY_429),
        *(Fault.RESET, Fault.GARBAGE, Fault.BAD_REQUEST),
    }
)


def _item(raw: bytes) -> str:
    start = raw.find(b"item-")
    if start < 0:
        return ""
    end = start + 5
    while end < len(raw) and 48 <= raw[end] <= 57:
        end += 1
    return raw[start:end].decode()


async def serve(port: int, options: Options) -> None:
    """Serve on 127.0.0.1 until cancelled."""

    def make(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=1 << 30)

    loop = asyncio.get_running_loop()
    # A client that goes away takes its request with it, as in vLLM: else the dead would count as in flight.
    server = web.Server(Stub(options).handle, request_factory=make, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096, reuse_address=True).start()
    await asyncio.Event().wait()
