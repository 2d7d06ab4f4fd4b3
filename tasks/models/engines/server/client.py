"""Send HTTP requests to one or several OpenAI-compatible addresses; share the load and retry temporary failures."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tasks.errors import AccountError, EngineError
from tasks.models.engines.server.chat import get_path
from tasks.models.engines.server.pacing import AdaptiveLimit, Patience, Progress
from tasks.models.engines.server.retries import (
    OVERLOAD_STATUSES,
    RETRIED_4XX,
    CrashesServer,
    Refused,
    Tries,
    is_account_fault,
    parse_retry_after,
    read_error_message,
)
from tasks.models.engines.spec import EngineSpec, name_secret_block
from tasks.models.unanswered import Unanswered

_log = logging.getLogger("labelstill")

_REVIVED_WAIT = 0.1
"""Seconds to wait after a server was revived, because a living server may still refuse connections."""
_GET_SECONDS = 60.0
"""Timeout of a GET request, which a server answers even while it is busy."""
_PROBE_SECONDS = 60.0
"""Time for an answer of one token, from a server that did nothing but fail for a while."""
_STALLED_REST = 0.05
"""A server that stalls is left alone for this share of the silence, so that other addresses get its requests."""


Revive = Callable[[str], str]
"""Takes the base URL of a dead server, restarts the server and returns its base URL, which may have changed.

Raises EngineError when that fails.
"""


@dataclass
class _Address:
    url: str
    progress: Progress
    in_flight: int = 0
    resting_until: float = 0.0
    reviving: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, eq=False)
class _InFlight:
    address: _Address
    sent_at: float
    tokens: int
    clock: asyncio.Timeout


class Client:
    """A pool of connections to the addresses that serve one model. Create and use it inside one event loop.

    At most `spec.concurrency` requests are in flight, and fewer while the server is overloaded. `post` raises
    Unanswered when one request fails, and EngineError when no address answers anything any more.
    """

    def __init__(self, spec: EngineSpec, key: str, revive: Revive | None, patience: Patience) -> None:
        self._spec = spec
        self._patience = patience
        self._addresses = [_Address(url.rstrip("/"), Progress(patience)) for url in spec.base_urls]
        self._revive = revive
        self.limit = AdaptiveLimit(spec.concurrency)
        self._few_at_once = asyncio.Semaphore(8)
        self._one_at_once = asyncio.Semaphore(1)
        self._answered = False
        self._failing_since: float | None = None
        """When the first failure after the last answer was."""
        self._probing = asyncio.Lock()
        self._extra = orjson.dumps(spec.extra_body)[1:-1]
        self._key = key
        authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            headers={"Content-Type": "application/json", **authorization},
        )
        self._in_flight: set[_InFlight] = set()
        self._watch = asyncio.create_task(self._time_out())
        self.busy_seconds = 0.0
        """Seconds that each request was in flight, summed over the requests that have ended."""

    @property
    def in_flight(self) -> int:
        """Return the number of requests in flight."""
        return len(self._in_flight)

    async def post(self, body: bytes, tokens: int = 0) -> dict[str, Any]:
        """Send `body` with `extra_body`, and return the chat completion; it has at least one choice.

        `tokens` is the largest number of tokens that the answer may have: a long answer takes longer.
        """
        if self._extra:
            body = body[:-1] + b"," + self._extra + b"}"
        tries = Tries()
        while not tries.used_up:
            async with self._limit_suspects(tries.crashes):
                answer = await self._try(body, tokens, tries)
            if answer is not None:
                return answer
        failed = CrashesServer if tries.crashes else Unanswered
        raise failed(f"failed {tries.faults + tries.busy + tries.crashes} times, most recently with: {tries.last}")

    def _limit_suspects(self, crashes: int) -> AbstractAsyncContextManager[Any]:
        """Return a limit for requests that met `crashes`: in the end one at a time, to find their cause."""
        if crashes >= 4:
            return self._one_at_once
        return self._few_at_once if crashes >= 2 else nullcontext()

    async def get(self, path: str) -> tuple[int, Any]:
        """Send a GET request to the first address that answers; return the status and the JSON (None if invalid)."""
        tries = Tries()
        while True:
            address = await self._choose_address()
            try:
                async with asyncio.timeout(_GET_SECONDS), self._session.get(address.url + path) as response:
                    content = await response.read()
                self._note_answer()
                return response.status, _parse_json(content)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                await self._handle_unreachable(address, error, tries)

    def forget_times(self) -> None:
        """Forget how long the requests so far took: tiny ones say nothing about others."""
        self.busy_seconds = 0.0
        for address in self._addresses:
            address.progress = Progress(self._patience)

    async def close(self) -> None:
        """Close all connections."""
        self._watch.cancel()
        await self._session.close()

    async def _try(self, body: bytes, tokens: int, tries: Tries) -> dict[str, Any] | None:
        """Send `body` once; return None after a temporary failure, which `tries` then counts."""
        address = await self._choose_address()
        sent_at = time.monotonic()
        try:
            async with self.limit:
                sent_at = time.monotonic()
                response, content = await self._send(body, tokens, address)
        except (aiohttp.ServerConnectionError, aiohttp.ClientOSError, ConnectionError) as error:
            if not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                tries.crashes += 1  # the others were never in flight
            await self._handle_unreachable(address, error, tries)
            return None
        except TimeoutError:
            fault = f"no answer within {time.monotonic() - sent_at:.0f} s"
            rest = self._patience.silence * _STALLED_REST
            address.resting_until = max(address.resting_until, time.monotonic() + rest)
            self._note_overload(address, fault)
            await self._check_patience(address)
        except aiohttp.ClientError as error:
            fault = self._describe_error(error)
            await self._check_patience(address)
        else:
            if response.status != 200:
                await self._handle_error_status(address, response, self._hide_key(content), tries)
                return None
            self._note_answer()
            answer = _parse_json(content)
            if isinstance(get_path(answer, "choices"), list) and answer["choices"]:
                address.progress.note_answer(sent_at, time.monotonic())
                self.limit.note_answer()
                return answer
            if get_path(answer, "error"):
                self._check_account(address, response.status, answer, self._hide_key(content))
            fault = f"an answer without `choices`: {self._hide_key(content)[:200].decode(errors='replace')}"
        tries.faults += 1
        tries.last = fault
        await asyncio.sleep(tries.choose_wait())
        return None

    async def _send(self, body: bytes, tokens: int, address: _Address) -> tuple[aiohttp.ClientResponse, bytes]:
        """Return the response and its content; raise TimeoutError when the server makes no progress."""
        data = aiohttp.BytesPayload(body)
        url = address.url + "/chat/completions"
        async with asyncio.timeout(None) as clock:
            sent = _InFlight(address, time.monotonic(), tokens, clock)
            self._in_flight.add(sent)
            address.in_flight += 1
            try:
                async with self._session.post(url, data=data) as response:
                    return response, await response.read()
            finally:
                self._in_flight.remove(sent)
                address.in_flight -= 1
                self.busy_seconds += time.monotonic() - sent.sent_at

    async def _time_out(self) -> None:
        """Watch the requests in flight, and end those that are overdue."""
        while True:
            await asyncio.sleep(min(1.0, self._patience.silence / 20))
            now = time.monotonic()
            for sent in self._in_flight:
                if sent.address.progress.is_overdue(sent.sent_at, sent.tokens, now) and not sent.clock.expired():
                    sent.clock.reschedule(asyncio.get_running_loop().time())

    async def _handle_error_status(
        self, address: _Address, response: aiohttp.ClientResponse, content: bytes, tries: Tries
    ) -> None:
        status = response.status
        answer = _parse_json(content)
        message, param = read_error_message(answer, content)
        tries.last = f"HTTP {status}: {message}"
        self._check_account(address, status, answer, content)
        if status < 500 and status not in RETRIED_4XX:
            if status in (401, 403):
                named = self._spec.api_key_env
                fix = (
                    f"check the key in ${named}" if named else "set `api_key_env` to the variable that contains the key"
                )
                raise AccountError(f"{address.url} rejects our API key: {tries.last}; {fix}")
            if status == 404:
                raise EngineError(
                    f"{address.url}: {tries.last}; check `base_urls` (they end in /v1), `model` and `adapter`"
                )
            self._note_answer()
            raise Refused(status, message, param)
        await self._check_patience(address)
        if status in OVERLOAD_STATUSES:
            self._note_overload(address, tries.last)
            tries.busy += 1
        else:
            tries.faults += 1
        asked = parse_retry_after(response.headers.get("Retry-After"))
        if asked is not None:
            # the server asks all requests to wait, not only this one
            address.resting_until = max(address.resting_until, time.monotonic() + asked)
        await asyncio.sleep(tries.choose_wait() if asked is None else asked + tries.choose_wait() / 4)

    def _check_account(self, address: _Address, status: int, answer: Any, content: bytes) -> None:
        """Raise AccountError when `answer`, an error, says that the provider answers nothing until it is paid."""
        message, _ = read_error_message(answer, content)
        if is_account_fault(status, answer, message):
            raise AccountError(
                f"{address.url} refuses all requests because of your account: HTTP {status}: {message}; top up the "
                "account or raise its limit there, then run again (answers so far are kept)"
            )

    async def _choose_address(self) -> _Address:
        """Return the address with the fewest requests in flight among those that are not resting."""
        while True:
            now = time.monotonic()
            awake = [a for a in self._addresses if a.resting_until <= now]
            if awake:
                return min(awake, key=lambda a: a.in_flight)
            await asyncio.sleep(min(a.resting_until for a in self._addresses) - now + 0.01)

    async def _handle_unreachable(self, address: _Address, error: BaseException, tries: Tries) -> None:
        tries.last = self._describe_error(error)
        if self._revive is not None:
            async with address.reviving:
                address.url = await asyncio.to_thread(self._revive, address.url)
            self._note_answer()
            await asyncio.sleep(_REVIVED_WAIT)
            return
        await self._check_patience(address)
        rest = 0.2 + random.random() * 0.3
        address.resting_until = max(address.resting_until, time.monotonic() + rest)
        await asyncio.sleep(rest)

    def _note_answer(self) -> None:
        self._answered = True
        self._failing_since = None

    def _note_overload(self, address: _Address, why: str) -> None:
        if self.limit.now == self._spec.concurrency:
            _log.warning("%s is overloaded (%s); fewer requests are sent at a time for now", address.url, why)
        self.limit.note_overload()

    async def _check_patience(self, address: _Address) -> None:
        """Note a failure; raise EngineError when there were only failures for too long.

        Before that, the server is asked for one token: it may be well, and only the last items of a run fail.
        """
        async with self._probing:
            now = time.monotonic()
            if self._failing_since is None:
                self._failing_since = now
            failing = now - self._failing_since
            if failing <= (self._patience.silence if self._answered else self._patience.start):
                return
            if await self._answers_anything(address):
                self._note_answer()
                return
        raise EngineError(
            f"{address.url}: no answer from any address for {failing:.0f} s; start the server or correct "
            "`base_urls`, then run again (answers so far are kept)"
        )

    async def _answers_anything(self, address: _Address) -> bool:
        messages = [{"role": "user", "content": "Hello"}]
        body = {"model": self._spec.adapter or self._spec.model, "messages": messages, "max_tokens": 1}
        try:
            async with (
                asyncio.timeout(_PROBE_SECONDS),
                self._session.post(address.url + "/chat/completions", json={**body, **self._spec.extra_body}) as reply,
            ):
                return reply.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _describe_error(self, error: BaseException) -> str:
        text = f"{type(error).__name__}: {str(error) or 'connection lost'}"
        return self._hide_key(text.encode(errors="replace")).decode()[:300]

    def _hide_key(self, text: bytes) -> bytes:
        """Return `text` without the key, which some servers quote: it goes into logs, the ledger and errors."""
        return text.replace(self._key.encode(), b"(key)") if self._key else text


def read_api_key(spec: EngineSpec) -> str:
    """Return the server's API key, or an empty text without `api_key_env`; raise EngineError if the key is not set."""
    if spec.api_key_env is None:
        return ""
    key = os.environ.get(spec.api_key_env)
    if not key:
        raise EngineError(
            f"the environment variable {spec.api_key_env} (`api_key_env`) is not set; export it where the run or its "
            f"worker is started, or save the key in Prefect as a Secret block: {name_secret_block(spec.api_key_env)}"
        )
    return key


def _parse_json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
