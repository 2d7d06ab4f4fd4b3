"""Adapt the number of requests in flight to what the server bears, and tell a slow server from a stalled one.

No time limit per answer fits all servers: two A100 that run a 72B model answer each of 256 requests with four images
after 680 s, and none of that work may be thrown away. So time is limited only without progress.
"""

import asyncio
from dataclasses import dataclass

_SILENT_TOKENS = 4500
"""Tokens that any server writes during the `silence` of Patience, even with hundreds of answers side by side."""
_SLOWEST_FADES = 0.998
"""Per answer; so the slowest answer counts for some hundred answers."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds."""

    start: float = 15.0
    """After the first failure to reach a server that has never answered; it is probably not there."""
    silence: float = 900.0
    """Without any answer while requests are in flight, or while the server cannot be reached or only fails."""


@dataclass
class Progress:
    """When and how slowly one server answers."""

    patience: Patience
    last_answer_at: float = 0.0
    slowest: float = 0.0
    """Seconds of the slowest recent answer; 0 before the first."""

    def note_answer(self, sent_at: float, now: float) -> None:
        """Note that a request sent at `sent_at` is answered."""
        self.last_answer_at = now
        self.slowest = max(now - sent_at, self.slowest * _SLOWEST_FADES)

    def is_overdue(self, sent_at: float, tokens: int, now: float) -> bool:
        """Return whether to give up a request for an answer of at most `tokens`.

        The server must have answered nothing for much longer than it needs for an answer, or this request must have
        waited many times longer than others. How long the first answer takes, nobody knows: a server reads hundreds of
        prompts first.
        """
        least = self.patience.silence * ((1 if self.slowest else 3) + tokens / _SILENT_TOKENS)
        silent = now - max(sent_at, self.last_answer_at)
        return silent > max(least, 2 * self.slowest) or now - sent_at > max(least, 5 * self.slowest)


class AdaptiveLimit:
    """A limit on requests in flight, which falls while the server is overloaded and grows again.

    Each refusal or timeout lowers it by 0.5: when all requests in flight fail, the limit is halved, and when one in a
    hundred does, the limit stays close to what the server bears. It grows by half the number of rounds of answers since
    then, per round, so it is cautious near an overload and comes back from an outage in some thirty rounds.

    A context manager, which waits until a request may be sent.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._answers_since_overload = 0
        self._slots = asyncio.Semaphore(most)
        self._existing = most
        """Slots in use or free. A slot that exceeds the limit ceases to exist when it is left."""

    @property
    def now(self) -> int:
        """Return the maximum number of requests in flight at present."""
        return int(self._limit)

    async def __aenter__(self) -> None:
        await self._slots.acquire()

    async def __aexit__(self, *_: object) -> None:
        if self._existing > self.now:
            self._existing -= 1
        else:
            self._slots.release()

    def note_answer(self) -> None:
        """Note that the server has answered a request."""
        self._answers_since_overload += 1
        rounds = self._answers_since_overload / self._limit
        self._limit = min(self._most, self._limit + rounds / 2 / self._limit)
        while self._existing < self.now:
            self._existing += 1
            self._slots.release()

    def note_overload(self) -> None:
        """Note that the server has refused a request as too much at present, or has not answered it in time."""
        self._answers_since_overload = 0
        self._limit = max(1.0, self._limit - 0.5)
