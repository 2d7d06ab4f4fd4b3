"""Send HTTP requests to one or several OpenAI-compatible addresses; share the load and retry temporary failures."""

import asyncio
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
from tasks.models.engines.server.retries import (
    BUSY_STATUSES,
    RETRIED_4XX,
    Refused,
    Tries,
    is_account_fault,
    parse_retry_after,
    read_error_message,
)
from tasks.models.engines.spec import EngineSpec, name_secret_block
from tasks.models.unanswered import Unanswered

_REVIVED_WAIT = 0.1
"""Seconds to wait after a server was revived, because a living server may still refuse connections."""


Revive = Callable[[str], str]
"""Takes the base URL of a dead server, restarts the server and returns its base URL, which may have changed.

Raises EngineError when that fails.
"""


@dataclass
class _Address:
    url: str
    in_flight: int = 0
    resting_until: float = 0.0
    reviving: asyncio.Lock = field(default_factory=asyncio.Lock)


class Client:
    """A pool of connections to the addresses that serve one model. Create and use it inside one event loop.

    At most `spec.concurrency` requests are in flight. `post` raises Unanswered when one request fails, and EngineError
    when no address has answered anything for `spec.patience_seconds`.
    """

    def __init__(self, spec: EngineSpec, key: str, revive: Revive | None) -> None:
        self._spec = spec
        self._addresses = [_Address(url.rstrip("/")) for url in spec.base_urls]
        self._revive = revive
        self._slots = asyncio.Semaphore(spec.concurrency)
        self._few_at_once = asyncio.Semaphore(8)
        self._one_at_once = asyncio.Semaphore(1)
        self._last_answer_at = time.monotonic()
        self._extra = orjson.dumps(spec.extra_body)[1:-1]
        self._key = key
        authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=spec.timeout_seconds, sock_connect=30),
            headers={"Content-Type": "application/json", **authorization},
        )
        self.in_flight = 0
        self.busy_seconds = 0.0
        """Seconds that each request was in flight, summed over the requests that have ended."""

    async def post(self, body: bytes) -> dict[str, Any]:
        """Send `body` with `extra_body`, and return the chat completion; it has at least one choice."""
        if self._extra:
            body = body[:-1] + b"," + self._extra + b"}"
        tries = Tries()
        while not tries.used_up:
            async with self._limit_suspects(tries.crashes):
                answer = await self._try(body, tries)
            if answer is not None:
                return answer
        raise Unanswered(f"failed {tries.faults + tries.busy + tries.crashes} times, most recently with: {tries.last}")

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
                async with self._session.get(address.url + path) as response:
                    content = await response.read()
                self._last_answer_at = time.monotonic()
                return response.status, _parse_json(content)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                await self._handle_unreachable(address, error, tries)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _try(self, body: bytes, tries: Tries) -> dict[str, Any] | None:
        """Send `body` once; return None after a temporary failure, which `tries` then counts."""
        address = await self._choose_address()
        try:
            async with self._slots:
                data = aiohttp.BytesPayload(body)
                began = time.monotonic()
                address.in_flight += 1
                self.in_flight += 1
                try:
                    async with self._session.post(address.url + "/chat/completions", data=data) as response:
                        content = await response.read()
                finally:
                    address.in_flight -= 1
                    self.in_flight -= 1
                    self.busy_seconds += time.monotonic() - began
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
            if not isinstance(error, aiohttp.ClientConnectorError):  # such a request was never in flight
                tries.crashes += 1
            await self._handle_unreachable(address, error, tries)
            return None
        except (aiohttp.ClientError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            fault = f"no answer within {self._spec.timeout_seconds:g} s" if late else self._describe_error(error)
            self._check_patience(address)
        else:
            if response.status != 200:
                await self._handle_error_status(address, response, self._hide_key(content), tries)
                return None
            self._last_answer_at = time.monotonic()
            answer = _parse_json(content)
            if isinstance(get_path(answer, "choices"), list) and answer["choices"]:
                return answer
            if get_path(answer, "error"):
                self._check_account(address, response.status, answer, self._hide_key(content))
            fault = f"an answer without `choices`: {self._hide_key(content)[:200].decode(errors='replace')}"
        tries.faults += 1
        tries.last = fault
        await asyncio.sleep(tries.choose_wait())
        return None

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
            self._last_answer_at = time.monotonic()
            raise Refused(status, message, param)
        self._check_patience(address)
        if status in BUSY_STATUSES:
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
            self._last_answer_at = time.monotonic()
            await asyncio.sleep(_REVIVED_WAIT)
            return
        self._check_patience(address)
        rest = 0.2 + random.random() * 0.3
        address.resting_until = max(address.resting_until, time.monotonic() + rest)
        await asyncio.sleep(rest)

    def _check_patience(self, address: _Address) -> None:
        silent = time.monotonic() - self._last_answer_at
        if silent > self._spec.patience_seconds + self._spec.timeout_seconds * (self.busy_seconds > 0):
            raise EngineError(
                f"{address.url}: no answer from any address for {silent:.0f} s; restart the server or correct "
                "`base_urls`, then run again (answers so far are kept)"
            )

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
