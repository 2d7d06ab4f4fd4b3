"""HTTP to one or several OpenAI-compatible addresses: the load shared, what can be cured tried again, nothing else."""

import asyncio
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import aiohttp
import orjson

from tasks.errors import EngineError
from tasks.models.engines.server.retries import (
    CURABLE,
    TURNED_AWAY,
    GaveUp,
    Refused,
    Tries,
    complaint,
    retry_after_seconds,
)
from tasks.models.engines.spec import EngineSpec

_AFTER_MENDING = 0.1
"""Seconds; a server that is alive and refuses connections all the same must not be asked in a tight loop."""


class Keeper(Protocol):
    """Somebody who can bring a dead server back."""

    def revive(self, base_url: str) -> str:
        """Return the address when the server of `base_url` answers again, which may be another one by then.

        Raises EngineError when it can't be brought back.
        """
        ...


@dataclass
class _Address:
    url: str
    in_flight: int = 0
    resting_until: float = 0.0
    mending: asyncio.Lock = field(default_factory=asyncio.Lock)


class Client:
    """A pool of connections to the addresses of one model. Create and use it inside one event loop.

    `post` keeps at most `spec.concurrency` requests in flight and raises Refused or GaveUp for the one request,
    EngineError when no address has answered anything for `spec.patience_seconds`.
    """

    def __init__(self, spec: EngineSpec, base_urls: Sequence[str], keeper: Keeper | None = None, key: str = "") -> None:
        self._spec = spec
        self._addresses = [_Address(url.rstrip("/")) for url in base_urls]
        self._keeper = keeper
        self._room = asyncio.Semaphore(spec.concurrency)
        self._few, self._alone = asyncio.Semaphore(8), asyncio.Semaphore(1)
        self._heard = time.monotonic()
        self._key = key or key_of(spec)
        authorization = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=spec.timeout_seconds, sock_connect=30),
            headers={"Content-Type": "application/json", **authorization},
        )
        self.in_flight = 0
        self.busy_seconds = 0.0
        self._changed = time.monotonic()

    async def post(self, body: bytes, path: str = "/chat/completions", *, key: str = "choices") -> dict[str, Any]:
        """The server's JSON answer, which holds a non-empty list under `key`."""
        tries = Tries()
        while True:
            if tries.crashes >= 4:  # one at a time: then a crash tells which request does it
                async with self._alone:
                    answer = await self._try(path, body, key, tries)
            elif tries.crashes >= 2:
                async with self._few:
                    answer = await self._try(path, body, key, tries)
            else:
                answer = await self._try(path, body, key, tries)
            if answer is not None:
                return answer
            if tries.used_up:
                raise GaveUp(
                    f"given up after {tries.faults + tries.busy + tries.crashes} tries; the last: {tries.last}"
                )

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

    async def _try(self, path: str, body: bytes, key: str, tries: Tries) -> dict[str, Any] | None:
        """One try; None when it failed in a way that another one may cure (then `tries` says how)."""
        address = await self._address()
        try:
            async with self._room:
                self._count(address, 1)
                try:
                    async with self._session.post(address.url + path, data=aiohttp.BytesPayload(body)) as response:
                        content = await response.read()
                finally:
                    self._count(address, -1)
        except aiohttp.ClientConnectorError as error:
            await self._unreachable(address, error, tries)
            return None
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
            tries.crashes += 1
            await self._unreachable(address, error, tries)
            return None
        except (aiohttp.ClientError, TimeoutError) as error:
            tries.faults += 1
            tries.last = f"no answer within {self._spec.timeout_seconds:g} s" if _late(error) else self._words(error)
            self._check_patience(address)
            await asyncio.sleep(tries.wait())
            return None
        answer = _json(content)
        if response.status == 200:
            self._heard = time.monotonic()
            if isinstance(answer, dict):
                found = cast("dict[str, Any]", answer)
                if isinstance(found.get(key), list) and found[key]:
                    return found
            tries.faults += 1
            tries.last = f"an answer without `{key}`: {self._hushed(content)[:200].decode(errors='replace')}"
            await asyncio.sleep(tries.wait())
            return None
        await self._turned_down(address, response.status, response.headers.get("Retry-After"), content, tries)
        return None

    async def _turned_down(
        self, address: _Address, status: int, retry_after: str | None, content: bytes, tries: Tries
    ) -> None:
        content = self._hushed(content)
        message, param = complaint(_json(content), content)
        tries.last = f"HTTP {status}: {message}"
        if status < 500 and status not in CURABLE:
            if status in (401, 403):
                named = self._spec.api_key_env
                mend = f"check the key in ${named}" if named else "set `api_key_env` to the variable that holds its key"
                raise EngineError(f"{address.url} refuses us: {tries.last}; {mend}")
            if status == 404:
                raise EngineError(f"{address.url}: {tries.last}; check `base_urls`, `model` and `adapter`")
            self._heard = time.monotonic()
            raise Refused(status, message, param)
        self._check_patience(address)
        if status in TURNED_AWAY:
            tries.busy += 1
        else:
            tries.faults += 1
        asked = retry_after_seconds(retry_after)
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
        if self._keeper is not None:
            async with address.mending:
                address.url = await asyncio.to_thread(self._keeper.revive, address.url)
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

    def _count(self, address: _Address, change: int) -> None:
        self.settle()
        address.in_flight += change
        self.in_flight += change

    def _words(self, error: BaseException) -> str:
        said = f"{type(error).__name__}: {str(error) or 'connection lost'}"
        return self._hushed(said.encode(errors="replace")).decode()[:300]

    def _hushed(self, text: bytes) -> bytes:
        """`text`, whole, without the key: it goes into logs, the ledger and errors, and some servers quote us in it."""
        return text.replace(self._key.encode(), b"(key)") if self._key else text

    def settle(self) -> None:
        """Bring `busy_seconds` (request-seconds in flight) up to now."""
        now = time.monotonic()
        self.busy_seconds += self.in_flight * (now - self._changed)
        self._changed = now


def key_of(spec: EngineSpec) -> str:
    """The server's key from the environment, empty where none is named; raises EngineError when it is not set."""
    if spec.api_key_env is None:
        return ""
    key = os.environ.get(spec.api_key_env)
    if not key:
        raise EngineError(f"the environment variable {spec.api_key_env} (`api_key_env`) is not set")
    return key


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _late(error: BaseException) -> bool:
    return isinstance(error, TimeoutError)
