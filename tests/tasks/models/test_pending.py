"""Going on while a batch API has not answered."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tasks.errors import AnswersPending
from tasks.models.ask import Asker, stream_answers, stream_labels
from tasks.models.costs import Budget, Tally, expect_cost
from tasks.models.engines.scripted import ScriptedEngine
from tasks.models.engines.spec import EngineSpec, Prices
from tasks.models.ledger.ledger import Ledger
from tasks.models.pending import ask_each
from tasks.models.settings import BudgetSettings
from tasks.records import Generation, Outcome, Request, Sampling
from tests.tasks.making import generation, prompter, sample

BATCH = EngineSpec(
    engine="server", model="m", base_urls=("http://127.0.0.1:1/v1",), batch=True, prices=Prices(prompt=2.0, output=2.0)
)


def make_requests(count: int) -> list[Request]:
    prompts = prompter()
    return [prompts.classify(sample(f"s{i}"), Sampling(max_tokens=96)) for i in range(count)]


class Half(ScriptedEngine):
    """Answers the first half of what it is asked; the rest is pending."""

    def __init__(self) -> None:
        super().__init__(EngineSpec(engine="scripted", model="scripted:first"))
        self.asked: list[str] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        drawn = list(requests)
        self.asked += [r.key for r in drawn]
        yield from super().generate(drawn[: len(drawn) // 2])
        raise AnswersPending(f"{len(drawn) - len(drawn) // 2} are pending")


def test_answers_so_far_are_kept_and_counted(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, Asker(ledger, lambda spec: Half()) as asker:
        with pytest.raises(AnswersPending, match=r"^the pool: 5 of 10 answered\. 5 are pending$"):
            asker.ask(make_requests(10), BATCH, "the pool")
        assert len(ledger.get(r.key for r in make_requests(10))) == 5


def test_a_second_attempt_is_sent_while_first_ones_are_pending() -> None:
    sent: list[list[str]] = []

    def stream(requests: Iterable[Request]) -> Iterator[tuple[Request, Generation]]:
        drawn = list(requests)
        sent.append([r.sample_id for r in drawn])
        yield drawn[0], generation(drawn[0].key, outcome=Outcome.OK, texts=("<<<",))
        raise AnswersPending(f"look {len(sent)}")

    with pytest.raises(AnswersPending, match=r"^look 1\nlook 2$"):
        list(stream_labels(stream, make_requests(3), source="teacher", model="m", attempts=2))
    assert sent == [["s0", "s1", "s2"], ["s0"]]


def test_independent_questions_are_asked_before_the_first_pending_one_ends_the_run() -> None:
    called: list[int] = []

    def ask(number: int) -> int:
        called.append(number)
        if number != 2:
            raise AnswersPending(f"{number} is pending")
        return number

    with pytest.raises(AnswersPending, match=r"^1 is pending\n3 is pending$"):
        ask_each(lambda: ask(1), lambda: ask(2), lambda: ask(3))
    assert called == [1, 2, 3]
    assert ask_each(lambda: 1, lambda: 2) == [1, 2]


def test_a_budget_counts_what_a_batch_will_cost_before_it_is_answered(tmp_path: Path) -> None:
    requests = make_requests(100)
    tokens, cost = expect_cost(BATCH)(requests[0])
    assert cost == pytest.approx(tokens / 1e6)  # half of 2 per million
    budget = Budget(BudgetSettings(cost=20 * cost))
    engine = Half()
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(AnswersPending):
        stream = stream_answers(lambda: engine, ledger, requests, Tally(), budget, BATCH.charged, expect_cost(BATCH))
        list(stream)
    assert 15 <= len(engine.asked) <= 25, "not all 100"


def test_an_answer_replaces_what_was_expected_of_it() -> None:
    budget = Budget(BudgetSettings(tokens=1000))
    budget.reserve("a", 600, 0.0)
    budget.reserve("b", 500, 0.0)
    assert not budget.allow()
    budget.charge(generation("a", tokens_in=90, tokens_out=10), Prices())
    assert budget.spent_tokens == 600
    assert budget.allow()
