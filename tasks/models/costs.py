"""What a stage's answers cost: tokens, time, how full the engines were kept, and money where prices are known."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from tasks.models.engines.engine import Prices, Usage
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
    prices, tally = session.prices, session.tally
    cached = prices.prompt if prices.cached is None else prices.cached
    tokens = (
        (tally.tokens_in - tally.tokens_cached) * prices.prompt
        + tally.tokens_cached * cached
        + tally.tokens_out * prices.output
    )
    return tokens / 1e6 + session.usage.gpus * session.held_seconds / 3600 * prices.gpu_hour
