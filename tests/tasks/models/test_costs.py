from collections import Counter
from pathlib import Path

import pytest

from tasks.errors import BudgetSpent
from tasks.models.ask import stream_answers
from tasks.models.costs import Budget, Tally
from tasks.models.engines.engine import Engine, Usage
from tasks.models.engines.scripted import ScriptedEngine
from tasks.models.engines.spec import EngineSpec, Prices
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import BudgetSettings
from tasks.records import Outcome, Request, Sampling
from tasks.storage.stage_record import Costs
from tests.tasks.making import generation, prompter, sample


def test_a_tally_counts_answers() -> None:
    tally = Tally()
    answer = generation(tokens_in=10, tokens_cached=4, tokens_out=2, tokens_thinking=1)
    for each in (answer, generation(outcome=Outcome.FAILED), generation(shortened="dropped turn 1")):
        tally.add(each, Prices())
    assert (tally.asked, tally.failed, tally.shortened, tally.tokens_in, tally.tokens_cached) == (3, 1, 1, 10, 4)
    assert dict(tally.costs().rows())["of these thinking"] == 1


def test_utilisation_weighs_engines_by_answering_time() -> None:
    tally = Tally(asked=7, reused=3, asked_again=2, rungs=Counter(strict=5))
    tally.add_session(Prices(), Usage(target=4, busy=36.0, seconds=10.0, starved=1.0, gpus=2), 20.0)
    tally.add_session(Prices(), Usage(target=1, busy=5.0, seconds=10.0), 12.0)
    costs = tally.costs()
    assert costs.utilisation == pytest.approx((36 + 5) / (40 + 10))
    assert (costs.answering_seconds, costs.starved_seconds, costs.gpu_seconds) == (20.0, 1.0, 40.0)
    assert (costs.asked, costs.reused, costs.asked_again, costs.rungs) == (7, 3, 2, {"strict": 5})
    assert costs.cost is None


def test_prices_are_per_million_tokens_and_per_gpu_hour() -> None:
    answer = generation(tokens_in=3_000_000, tokens_cached=1_000_000, tokens_out=500_000)
    prices = Prices(prompt=2.0, cached=0.5, output=6.0, gpu_hour=4.0)
    tally = Tally()
    tally.add(answer, prices)
    tally.add_session(prices, Usage(gpus=2), 1800.0)
    assert tally.costs().cost == pytest.approx(2 * 2.0 + 0.5 + 3.0 + 2 * 0.5 * 4.0)
    plain = Tally()
    plain.add(answer, Prices(prompt=2.0))
    assert plain.costs().cost == pytest.approx(6.0), "no price for cached tokens: the full one"


def test_only_an_engine_with_prices_costs_money() -> None:
    tally = Tally()
    tally.add(generation(tokens_in=10**9), Prices())
    tally.add_session(Prices(), Usage(gpus=8), 3600.0)
    tally.add(generation(tokens_out=1_000_000), Prices(output=1.0))
    assert tally.costs().cost == pytest.approx(1.0)


def test_the_table_omits_zero_figures() -> None:
    rows = dict(Costs(asked=2, utilisation=0.5, rungs={"strict": 2}).rows())
    assert rows == {"answers asked": 2, "engine utilisation, %": 50.0, "read: strict": 2}


# --- the budget: limits are kept, paid answers stay, the next run continues ------------------------------------


def questions(count: int) -> list[Request]:
    prompts = prompter()
    return [prompts.classify(sample(str(i)), Sampling()) for i in range(count)]


def scripted() -> Engine:
    return ScriptedEngine(EngineSpec(engine="scripted", model="scripted:hash"))


def budget(**limits: float) -> Budget:
    return Budget(BudgetSettings.model_validate(limits))


def spend(ledger: Ledger, requests: list[Request], budget: Budget, prices: Prices, tally: Tally) -> int:
    got = 0
    for _ in stream_answers(scripted, ledger, requests, tally, budget, prices):
        got += 1
    return got


def test_requests_never_exceed_the_budget_and_the_next_run_continues(tmp_path: Path) -> None:
    requests = questions(300)
    asked: list[int] = []
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for _ in range(3):
            tally = Tally()
            try:
                spend(ledger, requests, budget(requests=140), Prices(), tally)
            except BudgetSpent as spent:
                assert "140 of 140 requests" in str(spent)
            asked.append(tally.asked)
        assert len(ledger) == 300
    assert asked == [140, 140, 20]


def test_reused_answers_are_free(tmp_path: Path) -> None:
    requests = questions(5)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        spend(ledger, requests, budget(), Prices(), Tally())
        small = budget(requests=1, tokens=1, cost=0.001)
        assert spend(ledger, requests, small, Prices(prompt=9, output=9), Tally()) == 5


@pytest.mark.parametrize(
    ("limits", "message"), [({"tokens": 1}, "tokens"), ({"cost": 1e-9}, "in money"), ({"hours": 1e-12}, "hours")]
)
def test_each_limit_stops_and_says_which(limits: dict[str, float], message: str, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(BudgetSpent, match=message):
        spend(ledger, questions(400), budget(**limits), Prices(prompt=1.0, output=1.0), Tally())


def test_cached_tokens_have_their_own_price() -> None:
    spent = budget()
    answer = generation("k").model_copy(
        update={"tokens_in": 1_000_000, "tokens_cached": 400_000, "tokens_out": 500_000}
    )
    spent.charge(answer, Prices(prompt=2.0, cached=0.5, output=4.0))
    assert spent.spent_cost == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.5 * 4)
    assert spent.spent_tokens == 1_500_000
