"""A run's budget: what may be spent before it stops cleanly, to go on the next time."""

import threading
import time
from dataclasses import dataclass, field

from tasks.models.engines.engine import Prices
from tasks.records import Generation


@dataclass
class Budget:
    """What a run may spend, and what it has spent; safe to use from several threads.

    Questions are counted when they are put, so that `requests` is never exceeded; tokens and money when the answers
    come, so that those in flight may exceed them. Answers found in the ledger cost nothing.
    """

    requests: int | None = None
    tokens: int | None = None
    """Read and written together."""
    cost: float | None = None
    """Of tokens, at the engines' prices; time on one's own devices is limited by `hours`."""
    hours: float | None = None

    put: int = 0
    spent_tokens: int = 0
    spent_cost: float = 0.0
    began: float = field(default_factory=time.monotonic)
    """Monotonic: a clock that is set neither ends a run nor lets it go on for ever."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def allow(self) -> bool:
        """Whether one more question may be put; if so it is counted."""
        with self._lock:
            if self.reached() or (self.requests is not None and self.put >= self.requests):
                return False
            self.put += 1
            return True

    def charge(self, generation: Generation, prices: Prices) -> None:
        """Count an answer's tokens and price (per million tokens; cached ones may have a price of their own)."""
        cached = prices.prompt if prices.cached is None else prices.cached
        read = (generation.tokens_in - generation.tokens_cached) * prices.prompt + generation.tokens_cached * cached
        with self._lock:
            self.spent_tokens += generation.tokens_in + generation.tokens_out
            self.spent_cost += (read + generation.tokens_out * prices.output) / 1e6

    def reached(self) -> str:
        """Which limit of tokens, money or time is reached, in words; empty while none is."""
        hours = (time.monotonic() - self.began) / 3600
        if self.tokens is not None and self.spent_tokens >= self.tokens:
            return f"{self.spent_tokens:,} of {self.tokens:,} tokens"
        if self.cost is not None and self.spent_cost >= self.cost:
            return f"{self.spent_cost:,.2f} of {self.cost:,.2f} in money"
        if self.hours is not None and hours >= self.hours:
            return f"{hours:.2f} of {self.hours:g} hours"
        return ""

    def words(self) -> str:
        """Why no further question is allowed."""
        return self.reached() or f"{self.put:,} of {self.requests:,} requests"


@dataclass(frozen=True)
class Purse:
    """A budget at one engine's prices. Made for each asking; read by tasks/models/ask.py."""

    budget: Budget
    prices: Prices
