"""What a stage's answers cost, and the budget of a run, which stops cleanly once that much is spent.

Costs are tokens, time, how full the engines were kept, and money where prices are known.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields

from tasks.errors import BudgetSpent
from tasks.models.engines.engine import Prices, Usage
from tasks.models.settings import BudgetSettings
from tasks.records import Generation, Outcome
from tasks.storage.stage_record import Costs


@dataclass
class Tally:
    """What an asking cost; added up over a stage and written into its record."""

    asked: int = 0
    reused: int = 0
    failed: int = 0
    shortened: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    """Sum over the answers, so it grows `concurrency` times as fast as the clock."""

    def add(self, generation: Generation) -> None:
        """Count one new answer."""
        self.asked += 1
        self.failed += generation.outcome is Outcome.FAILED
        self.shortened += bool(generation.shortened)
        self.tokens_in += generation.tokens_in
        self.tokens_cached += generation.tokens_cached
        self.tokens_out += generation.tokens_out
        self.seconds += generation.seconds

    def since(self, earlier: "Tally") -> "Tally":
        """What has been added after `earlier`, a copy of this tally."""
        return Tally(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Session:
    """One engine's time from opening to closing, and what was answered in it."""

    prices: Prices
    usage: Usage
    held_seconds: float
    """From opening to closing: so long its devices could do nothing else."""
    tally: Tally


def add_up(total: Tally, sessions: Iterable[Session], asked_again: int, rungs: dict[str, int]) -> Costs:
    """The bill of a stage with `total` answers, given by the engines of `sessions`."""
    held = list(sessions)
    seconds = sum(s.usage.seconds for s in held)
    room = sum(s.usage.target * s.usage.seconds for s in held)
    priced = [s for s in held if s.prices != Prices()]
    return Costs(
        asked=total.asked,
        reused=total.reused,
        failed=total.failed,
        shortened=total.shortened,
        asked_again=asked_again,
        tokens_in=total.tokens_in,
        tokens_cached=total.tokens_cached,
        tokens_out=total.tokens_out,
        answering_seconds=seconds,
        utilisation=sum(s.usage.busy for s in held) / room if room else 0.0,
        starved_seconds=sum(s.usage.starved for s in held),
        gpu_seconds=sum(s.usage.gpus * s.held_seconds for s in held),
        cost=sum(map(_price, priced)) if priced else None,
        rungs=rungs,
    )


def _price(session: Session) -> float:
    tally = session.tally
    tokens = session.prices.cost_of(tally.tokens_in, tally.tokens_cached, tally.tokens_out)
    return tokens + session.usage.gpus * session.held_seconds / 3600 * session.prices.gpu_hour


class Budget:
    """What a run may spend, and what it has spent; safe to use from several threads.

    Questions are counted when they are asked, so that `limits.requests` is never exceeded; tokens and money when the
    answers come, so that those in flight may exceed them. Answers found in the ledger cost nothing.
    """

    def __init__(self, limits: BudgetSettings) -> None:
        self.limits = limits
        self.asked = 0
        self.spent_tokens = 0
        self.spent_cost = 0.0
        # monotonic: setting the clock neither ends a run nor lets it go on for ever
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def allow(self) -> bool:
        """Return whether one more question may be asked; if so, count it."""
        with self._lock:
            if self._limit_reached():
                return False
            self.asked += 1
            return True

    def charge(self, generation: Generation, prices: Prices) -> None:
        """Count an answer's tokens and their price."""
        with self._lock:
            self.spent_tokens += generation.tokens_in + generation.tokens_out
            self.spent_cost += prices.cost_of(generation.tokens_in, generation.tokens_cached, generation.tokens_out)

    def exhausted(self) -> BudgetSpent:
        """Return the error that says which limit ended the asking."""
        return BudgetSpent(f"the budget is spent: {self._limit_reached()}; the next run goes on from here")

    def _limit_reached(self) -> str:
        """Return which limit is reached, in words; empty while none is."""
        limits = self.limits
        hours = (time.monotonic() - self._began) / 3600
        if limits.tokens is not None and self.spent_tokens >= limits.tokens:
            return f"{self.spent_tokens:,} of {limits.tokens:,} tokens"
        if limits.cost is not None and self.spent_cost >= limits.cost:
            return f"{self.spent_cost:,.2f} of {limits.cost:,.2f} in money"
        if limits.hours is not None and hours >= limits.hours:
            return f"{hours:.2f} of {limits.hours:g} hours"
        if limits.requests is not None and self.asked >= limits.requests:
            return f"{self.asked:,} of {limits.requests:,} requests"
        return ""
