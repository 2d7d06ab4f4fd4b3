"""HTTP to one or several OpenAI-compatible addresses: the load shared, what can be cured tried again, nothing else."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tasks.errors import EngineError
from tasks.models.engines.server.chat import dig
from tasks.models.engines.server.retries import CURABLE, TURNED_AWAY, Refused, Tries, complaint, retry_after_seconds
from tasks.models.engines.spec import EngineSpec
from tasks.models.unanswered import Unanswered

_AFTER_MENDING = 0.1
"""Seconds; a server that is alive and refuses connections all the same must not be asked in a tight loop."""


Revive = Callable[[str], str]
"""Bring the dead server of a base URL back, and return the base URL under which it answers then, which may be another.

Raises EngineError when it can't be brought back.
"""


@dataclass
class _Address:
    url: str
    in_flight: int = 0
    resting_until: float = 0.0
    mending: asyncio.Lock = field(default_factory=asyncio.Lock)


class Client:
    """A pool of connections to the addresses of one model. Create and use it inside one event loop.

    `post` keeps at most `spec.concurrency` requests in flight and raises Unanswered (Refused) for the one request,
    EngineError when no address has answered anything for `spec.patience_seconds`.
    """

    def __init__(self, spec: EngineSpec, key: str, revive: Revive | None) -> None:
        self._spec = spec
        self._addresses = [_Address(url.rstrip("/")) for url in spec.base_urls]
        self._revive = revive
        self._room = asyncio.Semaphore(spec.concurrency)
        self._few, self._alone = asyncio.Semaphore(8), asyncio.Semaphore(1)
        self._heard = time.monotonic()
        self._key = key
        authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=spec.timeout_seconds, sock_connect=30),
            headers={"Content-Type": "application/json", **authorization},
        )
        self.in_flight = 0
        self.busy_seconds = 0.0
        """Request-seconds in flight, of the requests that have ended."""

    async def post(self, body: bytes) -> dict[str, Any]:
        """The chat completion that answers `body`, which has at least one choice."""
        tries = Tries()
        while not tries.used_up:
            # one at a time: then a crash tells which request does it
            limit = self._alone if tries.crashes >= 4 else self._few if tries.crashes >= 2 else nullcontext()
            async with limit:
                answer = await self._try(body, tries)
            if answer is not None:
                return answer
        raise Unanswered(f"given up after {tries.faults + tries.busy + tries.crashes} tries; the last: {tries.last}")

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON (None where it is none) of a GET at the first address that answers."""
        tries = Tries()
        while True:
            address = await self._address()
            try:
                async with self._session.get(address.url + path) as response:
                    content = await response.read()
                self._heard = time.monotonic()
                return response.status, _json(content)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                await self._unreachable(address, error, tries)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _try(self, body: bytes, tries: Tries) -> dict[str, Any] | None:
        """One try; None when it failed in a way that another one may cure (then `tries` says how)."""
        address = await self._address()
        try:
            async with self._room:
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
            if not isinstance(error, aiohttp.ClientConnectorError):  # that one was never in flight
                tries.crashes += 1
            await self._unreachable(address, error, tries)
            return None
        except (aiohttp.ClientError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            fault = f"no answer within {self._spec.timeout_seconds:g} s" if late else self._words(error)
            self._check_patience(address)
        else:
            if response.status != 200:
                await self._turned_down(address, response, self._hushed(content), tries)
                return None
            self._heard = time.monotonic()
            answer = _json(content)
            if isinstance(dig(answer, "choices"), list) and answer["choices"]:
                return answer
            fault = f"an answer without `choices`: {self._hushed(content)[:200].decode(errors='replace')}"
        tries.faults += 1
        tries.last = fault
        await asyncio.sleep(tries.wait())
        return None

    async def _turned_down(
        self, address: _Address, response: aiohttp.ClientResponse, content: bytes, tries: Tries
    ) -> None:
        status = response.status
        message, param = complaint(_json(content), content)
        tries.last = f"HTTP {status}: {message}"
        if status < 500 and status not in CURABLE:
            if status in (401, 403):
                named = self._spec.api_key_env
                mend = f"check the key in ${named}" if named else "set `api_key_env` to the variable that holds its key"
                raise EngineError(f"{address.url} refuses us: {tries.last}; {mend}")
            if status == 404:
                raise EngineError(
                    f"{address.url}: {tries.last}; check `base_urls` (they end in /v1), `model` and `adapter`"
                )
            self._heard = time.monotonic()
            raise Refused(status, message, param)
        self._check_patience(address)
        if status in TURNED_AWAY:
            tries.busy += 1
        else:
            tries.faults += 1
        asked = retry_after_seconds(response.headers.get("Retry-After"))
        if asked is not None:
            # the address as a whole asks for a rest, not this request only
            address.resting_until = max(address.resting_until, time.monotonic() + asked)
        await asyncio.sleep(tries.wait() if asked is None else asked + tries.wait() / 4)

    async def _address(self) -> _Address:
        """The address with the fewest requests in flight among those that aren't resting."""
        while True:
            now = time.monotonic()
            awake = [a for a in self._addresses if a.resting_until <= now]
            if awake:
                return min(awake, key=lambda a: a.in_flight)
            await asyncio.sleep(min(a.resting_until for a in self._addresses) - now + 0.01)

    async def _unreachable(self, address: _Address, error: BaseException, tries: Tries) -> None:
        tries.last = self._words(error)
        if self._revive is not None:
            async with address.mending:
                address.url = await asyncio.to_thread(self._revive, address.url)
            self._heard = time.monotonic()
            await asyncio.sleep(_AFTER_MENDING)
            return
        self._check_patience(address)
        rest = 0.2 + random.random() * 0.3
        address.resting_until = max(address.resting_until, time.monotonic() + rest)
        await asyncio.sleep(rest)

    def _check_patience(self, address: _Address) -> None:
        silent = time.monotonic() - self._heard
        if silent > self._spec.patience_seconds + self._spec.timeout_seconds * (self.busy_seconds > 0):
            raise EngineError(
                f"{address.url}: no answer from any address for {silent:.0f} s; start the server again or set "
                "`base_urls`, then run again: what is answered is kept"
            )

    def _words(self, error: BaseException) -> str:
        said = f"{type(error).__name__}: {str(error) or 'connection lost'}"
        return self._hushed(said.encode(errors="replace")).decode()[:300]

    def _hushed(self, text: bytes) -> bytes:
        """`text`, whole, without the key: it goes into logs, the ledger and errors, and some servers quote us in it."""
        return text.replace(self._key.encode(), b"(key)") if self._key else text


def key_of(spec: EngineSpec) -> str:
    """The server's key from the environment, empty where none is named; raises EngineError when it is not set."""
    if spec.api_key_env is None:
        return ""
    key = os.environ.get(spec.api_key_env)
    if not key:
        raise EngineError(
            f"the environment variable {spec.api_key_env} (`api_key_env`) is not set; export it where the run or "
            "its worker is started"
        )
    return key


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
