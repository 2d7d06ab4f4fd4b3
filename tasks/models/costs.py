"""Count what a stage's answers cost, and stop a run cleanly when its budget is spent.

Costs are tokens, time, the use of the engines and, if prices are configured, money.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from pydantic import ConfigDict

from tasks.errors import BudgetSpent
from tasks.models.engines.engine import Usage
from tasks.models.engines.spec import EngineSpec, Prices
from tasks.models.gpu_hours import measure_work
from tasks.models.qwen_vl import find_patch_size
from tasks.models.settings import BudgetSettings
from tasks.records import Generation, Outcome, Request
from tasks.storage.stage_record import Costs

Expect = Callable[[Request], tuple[int, float]]
"""Returns about how many tokens a question and its answer will have, and what they will cost."""


def expect_cost(spec: EngineSpec) -> Expect:
    """Return a function that estimates what a question to the engine of `spec` will cost."""
    patch_size = find_patch_size(spec)

    def expect(request: Request) -> tuple[int, float]:
        work = measure_work(request, patch_size)
        tokens, written = round(work.prompt_tokens), round(work.answer_tokens)
        return tokens + written, spec.charged.cost_of(tokens, 0, written)

    return expect


class Tally(Costs):
    """The costs of a stage so far."""

    model_config = ConfigDict(frozen=False)

    busy_seconds: float = 0.0
    """Seconds that each request was in flight, summed over all requests."""
    target_seconds: float = 0.0
    """What `busy_seconds` would be if as many requests as the engines can take had always been in flight."""

    def add(self, generation: Generation, prices: Prices) -> None:
        """Count a new answer and charge its tokens at `prices`."""
        g = generation
        self.asked += 1
        self.failed += g.outcome is Outcome.FAILED
        self.shortened += bool(g.shortened)
        self.tokens_in += g.tokens_in
        self.tokens_cached += g.tokens_cached
        self.tokens_out += g.tokens_out
        self.tokens_thinking += g.tokens_thinking
        self._charge(prices, prices.cost_of(g.tokens_in, g.tokens_cached, g.tokens_out))

    def add_session(self, prices: Prices, usage: Usage, held_seconds: float) -> None:
        """Count the time of an engine that has been open, and so occupied its devices, for `held_seconds`."""
        self.answering_seconds += usage.seconds
        self.starved_seconds += usage.starved
        self.busy_seconds += usage.busy
        self.target_seconds += usage.target * usage.seconds
        self.gpu_seconds += usage.gpus * held_seconds
        self._charge(prices, usage.gpus * held_seconds / 3600 * prices.gpu_hour)

    def costs(self) -> Costs:
        """Return the costs in the form that a stage's record stores."""
        found = Costs.model_validate(self.model_dump(include=set(Costs.model_fields)))
        used = self.busy_seconds / self.target_seconds if self.target_seconds else 0.0
        return found.model_copy(update={"utilisation": used})

    def _charge(self, prices: Prices, amount: float) -> None:
        if prices != Prices():
            self.cost = (self.cost or 0.0) + amount


@dataclass
class Budget:
    """What a run may spend and what it has spent. Several threads may use it.

    Requests are counted when they are asked, so `limits.requests` is never exceeded. Tokens and money are counted when
    answers arrive, so requests in flight may exceed these limits; those of a batch, of which thousands are sent before
    the first answer, are reserved. Answers from the ledger cost nothing.
    """

    limits: BudgetSettings
    asked: int = 0
    spent_tokens: int = 0
    spent_cost: float = 0.0
    _reserved: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    # monotonic, so that setting the clock does not affect the limit
    _began: float = field(default_factory=time.monotonic)
    _lock: Lock = field(default_factory=Lock)

    def allow(self) -> bool:
        """Return whether one more request may be asked; if so, count it."""
        with self._lock:
            if self._describe_limit():
                return False
            self.asked += 1
            return True

    def charge(self, generation: Generation, prices: Prices) -> None:
        """Count an answer's tokens and their price."""
        spent = prices.cost_of(generation.tokens_in, generation.tokens_cached, generation.tokens_out)
        with self._lock:
            tokens, cost = self._reserved.pop(generation.key, (0, 0.0))
            self.spent_tokens += generation.tokens_in + generation.tokens_out - tokens
            self.spent_cost += spent - cost

    def reserve(self, key: str, tokens: int, cost: float) -> None:
        """Count what the answer to the request `key` is expected to take, until it arrives."""
        with self._lock:
            self._reserved[key] = tokens, cost
            self.spent_tokens += tokens
            self.spent_cost += cost

    def make_error(self) -> BudgetSpent:
        """Return a BudgetSpent error that names the limit that was reached."""
        return BudgetSpent(f"the budget is spent: {self._describe_limit()}; run again to continue, or raise `budget`")

    def _describe_limit(self) -> str:
        """Return the limit that is reached, in words; empty while none is."""
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
