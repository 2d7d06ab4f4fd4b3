"""A run's budget: limits are kept, what was paid stays, the next run goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import BudgetSpent
from tasks.models.ask import ask
from tasks.models.costs import Tally
from tasks.models.engines.engine import Engine, EngineSpec, Prices
from tasks.models.engines.scripted import ScriptedEngine
from tasks.models.ledger.ledger import Ledger
from tasks.models.spending import Budget, Purse
from tasks.records import Request, Sampling
from tests.tasks.making import generation, prompter, sample


def questions(count: int) -> list[Request]:
    prompts = prompter()
    return [prompts.classify(sample(str(i)), Sampling()) for i in range(count)]


def scripted() -> Engine:
    return ScriptedEngine(EngineSpec(engine="scripted", model="scripted:hash"))


def spend(ledger: Ledger, requests: list[Request], purse: Purse, tally: Tally, engine: Callable[[], Engine]) -> int:
    got = 0
    for _ in ask(engine, ledger, requests, tally, purse):
        got += 1
    return got


def test_requests_are_never_exceeded_and_the_next_run_goes_on(tmp_path: Path) -> None:
    requests = questions(300)
    asked: list[int] = []
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for _ in range(3):
            tally = Tally()
            try:
                spend(ledger, requests, Purse(Budget(requests=140), Prices()), tally, scripted)
            except BudgetSpent as spent:
                assert "140 of 140 requests" in str(spent)
            asked.append(tally.asked)
        assert len(ledger) == 300
    assert asked == [140, 140, 20]


def test_reused_answers_are_free(tmp_path: Path) -> None:
    requests = questions(5)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        spend(ledger, requests, Purse(Budget(), Prices()), Tally(), scripted)
        purse = Purse(Budget(requests=1, tokens=1, cost=0.001), Prices(prompt=9, output=9))
        assert spend(ledger, requests, purse, Tally(), scripted) == 5


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(tokens=1), "tokens"),
        (Budget(cost=1e-9), "in money"),
        (Budget(hours=1e-12), "hours"),
    ],
)
def test_each_limit_stops_and_says_which(budget: Budget, said: str, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(BudgetSpent, match=said):
        spend(ledger, questions(400), Purse(budget, Prices(prompt=1.0, output=1.0)), Tally(), scripted)


def test_cached_tokens_have_their_own_price() -> None:
    budget = Budget()
    answer = generation("k").model_copy(
        update={"tokens_in": 1_000_000, "tokens_cached": 400_000, "tokens_out": 500_000}
    )
    budget.charge(answer, Prices(prompt=2.0, cached=0.5, output=4.0))
    assert budget.spent_cost == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.5 * 4)
    assert budget.spent_tokens == 1_500_000
