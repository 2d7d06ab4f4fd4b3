"""A teacher that thinks, on servers that can and that cannot hold it to a form meanwhile."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.errors import AnswersPending, BudgetSpent
from tasks.models.ask import Asker
from tasks.models.costs import Budget
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.identity import make_prompter
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import BudgetSettings
from tasks.models.teacher import find_thoughts
from tasks.packs.pack import load_pack
from tasks.records import Outcome, Prediction, Request, Sampling
from tasks.storage.stage_record import Costs
from tests import batch_stub
from tests.stub_answers import THOUGHT, Gap
from tests.stub_server import Options, Thinks, running
from tests.tasks.making import sample
from tests.tasks.models.engines.asking_stub import VOTES, open_engine_on

ANSWER = '{"理由": "用户问包裹", "所属类别": "查询物流"}'
NO_ANSWER = "应该和包裹有关"
CANNOT_COMBINE = (Thinks.NOT_WITH_SCHEMA, Thinks.ALONE_WITH_SCHEMA, Thinks.IN_TEXT)


def make_spec(url: str, **fields: Any) -> EngineSpec:
    return EngineSpec.model_validate(
        {"engine": "server", "model": "stub", "base_urls": (url,), "thinking_tokens": 256, **fields}
    )


def make_requests(spec: EngineSpec, sampling: Sampling = VOTES) -> list[Request]:
    prompts = make_prompter(load_pack("demo"), spec, {})
    return [prompts.classify(sample(f"s{n}", f"用户: item-{n} 怎么还没有到"), sampling) for n in range(4)]


def label(
    folder: Path, url: str, budget: Budget | None = None, attempts: int = 1, **fields: Any
) -> tuple[list[Prediction], dict[str, str], Costs]:
    """Return the labels of four items, what was thought about each, and what it cost."""
    spec, ledger = make_spec(url, **fields), folder / "ledger.sqlite"
    place = Workplace(ImageCache(folder / "images"), folder, ledger=ledger)
    with Ledger(ledger) as kept, Asker(kept, lambda spec: open_engine(spec, place), budget=budget) as asker:
        asked = {"source": "teacher", "model": "m", "attempts": attempts}
        found = asker.ask_for_labels(make_requests(spec), spec, "labels", **asked)
        return found, find_thoughts(kept, found), asker.costs()


@pytest.mark.parametrize("thinks", [Thinks.APART, *CANNOT_COMBINE])
def test_thoughts_are_kept_and_the_label_is_never_read_from_them(thinks: Thinks, tmp_path: Path) -> None:
    unguided = ANSWER if thinks in CANNOT_COMBINE else NO_ANSWER
    with running(Options(thinks=thinks, unguided=unguided)) as stub:
        found, thoughts, costs = label(tmp_path, stub.url)
    assert {p.outcome for p in found} == {Outcome.OK}
    assert all("草稿" not in p.reason and sum(p.votes.values()) == 3 for p in found)
    assert [text.startswith(f"{THOUGHT}item-{n}") for n, text in enumerate(thoughts.values())] == [True] * 4
    assert costs.asked == 4, "the free answers can be read, so the form is not asked for"
    assert 0 < costs.tokens_thinking < costs.tokens_out


@pytest.mark.parametrize("thinks", CANNOT_COMBINE)
def test_a_server_that_cannot_combine_thinking_and_form_is_asked_twice_and_pays_once(
    thinks: Thinks, tmp_path: Path
) -> None:
    with running(Options(thinks=thinks, unguided=NO_ANSWER)) as stub:
        with pytest.raises(BudgetSpent):  # as if the run was killed between the two questions
            label(tmp_path, stub.url, Budget(BudgetSettings(requests=4)))
        found, thoughts, costs = label(tmp_path, stub.url)
        assert (costs.asked, costs.reused, costs.tokens_thinking) == (4, 4, 0)
        again, _, costs = label(tmp_path, stub.url)
        assert (costs.asked, costs.reused) == (0, 8)
    assert found == again
    assert {(p.outcome, sum(p.votes.values())) for p in found} == {(Outcome.OK, 3)}
    assert all(text.startswith(THOUGHT) and text.endswith(NO_ANSWER) for text in thoughts.values())
    assert len(thoughts) == 4


def test_in_batches_the_form_is_asked_for_in_the_next_one(tmp_path: Path) -> None:
    with batch_stub.running(batch_stub.BatchOptions(thinks=Thinks.NOT_WITH_SCHEMA, looks=0)) as stub:
        looks = 0
        while True:
            try:
                found, thoughts, _ = label(tmp_path, stub.url, batch=True)
                break
            except AnswersPending:
                looks += 1
                assert looks < 5
        accepted = stub.stats()["accepted"]
    assert {(p.outcome, sum(p.votes.values())) for p in found} == {(Outcome.OK, 3)}
    assert len(thoughts) == 4 and all(THOUGHT in text for text in thoughts.values())
    assert (looks, accepted) == (2, 4 + 3 * 4)


def test_thinking_without_an_end_is_asked_again_and_says_what_to_raise(tmp_path: Path) -> None:
    with running(Options(thinks=Thinks.ENDLESS)) as stub:
        found, thoughts, costs = label(tmp_path, stub.url, attempts=2)
    assert {(p.outcome, p.label, p.attempt) for p in found} == {(Outcome.ONLY_THINKING, None, 1)}
    assert all("raise `thinking_tokens`" in p.detail for p in found)
    assert (costs.asked, thoughts) == (8, {})


def test_the_budget_counts_thinking(tmp_path: Path) -> None:
    budget = Budget(BudgetSettings())
    with running(Options(thinks=Thinks.APART)) as stub:
        _, _, costs = label(tmp_path, stub.url, budget, prices={"output": 1e6})
    assert budget.spent_tokens == costs.tokens_in + costs.tokens_out
    assert budget.spent_cost == costs.cost == costs.tokens_out


@pytest.mark.parametrize(
    ("thinks", "note"),
    [(Thinks.APART, ""), (Thinks.NOT_WITH_SCHEMA, "sent back once"), (Thinks.NEVER, "does not think although")],
)
def test_the_run_says_what_the_server_makes_of_thinking(thinks: Thinks, note: str, tmp_path: Path) -> None:
    with running(Options(thinks=thinks)) as stub, open_engine_on(tmp_path, stub.url, thinking_tokens=256) as engine:
        notes = [line for line in engine.notes if "think" in line]
    assert note in "".join(notes) and len(notes) == bool(note)


def test_a_server_that_refuses_to_be_told_to_think_still_answers_in_form(tmp_path: Path) -> None:
    with running(Options(gaps=frozenset({Gap.THINKING_REFUSED}))) as stub:
        found, thoughts, _ = label(tmp_path, stub.url)
    assert ({p.outcome for p in found}, thoughts) == ({Outcome.OK}, {})


def test_another_room_for_thinking_is_another_question() -> None:
    url = "http://127.0.0.1:1/v1"
    asked = [make_requests(make_spec(url, thinking_tokens=n)) for n in (0, 256, 512)]
    assert len({request.key for requests in asked for request in requests}) == 12
    assert [requests[0].thinking for requests in asked] == [0, 256, 512]
    spec = make_spec(url)
    prompts = make_prompter(load_pack("demo"), spec, {})
    bare = prompts.classify(sample(), VOTES, with_reason=False)
    assert (bare.thinking, prompts.conclude(sample(), "因为", VOTES).thinking) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"engine": "local", "base_urls": ()}, "engine `local` cannot think"),
        ({"extra_body": {"chat_template_kwargs": {}}}, "remove them from `extra_body`"),
    ],
)
def test_thinking_that_is_not_possible_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_spec("http://127.0.0.1:1/v1", **fields)
