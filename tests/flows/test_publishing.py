"""The published set is the one that was approved, even if files arrive, servers fail and processes die meanwhile."""

import shutil
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

import flows.relabel
from flows.relabel import digest_watched_inputs
from tasks.dataset.drift import RelabelOutcome, read_state
from tasks.dataset.settings import ApprovalSettings, DriftSettings
from tasks.dataset.versions import read_versions
from tasks.errors import ConfigError
from tasks.models.engines.scripted import ScriptedEngine
from tasks.models.settings import BudgetSettings
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.records import Example, Generation, Outcome, Request
from tasks.storage.rows import read_rows
from tasks.students.settings import StudentSpec
from tests.conftest import PrefectServer
from tests.flows.test_relabel import Watched, answer, pool, teacher

__all__ = ["pool"]
pytestmark = pytest.mark.timeout(300)
ASKS = ApprovalSettings(ask="always", hours=0.05)
YES = {"publish": True, "note": ""}
LOOSE = DriftSettings(relabelled=1, removed=1, balance=1, confidence=1)


def read_taught_items(folder: Path) -> set[str]:
    return {example.sample_id for example in read_rows(folder / "kept.parquet", Example)}


def test_items_that_arrive_during_approval_are_left_to_the_next_run(pool: Watched) -> None:
    def add_and_answer() -> None:
        publishing_now.wait(120)
        pool.add(seed=6, count=10)
        answer(YES)

    publishing_now = threading.Event()
    real = flows.relabel.ask_person

    def asked(*what: Any) -> Any:
        publishing_now.set()
        return real(*what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.relabel, "ask_person", asked)
        person = threading.Thread(target=add_and_answer)
        person.start()
        state = pool.relabel(approval=ASKS)
        person.join()
    assert (state.outcome, pool.asked()) == (RelabelOutcome.PUBLISHED, 30)
    output = pool.config.output
    assert read_taught_items(output / "emit") == read_taught_items(output / "candidate")
    pool.relabel()
    assert pool.asked() == 40


def test_an_answer_is_found_after_an_outage_of_the_api(pool: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    real, cut = SyncPrefectClient.read_flow_run, list[str]()

    def read(self: SyncPrefectClient, run: Any) -> FlowRun:
        found = real(self, run)
        if found.state is not None and found.state.is_paused() and len(cut) < 2:
            cut.append("away")
            raise httpx.ConnectError("away")
        return found

    monkeypatch.setattr(SyncPrefectClient, "read_flow_run", read)
    monkeypatch.setattr("flows.relabel._POLL_SECONDS", 1)

    def answer_late() -> None:
        while len(cut) < 2:
            threading.Event().wait(0.2)
        answer(YES)

    person = threading.Thread(target=answer_late)
    person.start()
    state = pool.relabel(approval=ASKS)
    person.join()
    assert (state.outcome, cut) == (RelabelOutcome.PUBLISHED, ["away", "away"])


@pytest.mark.parametrize("held_back", [False, True])
def test_an_interrupted_publication_is_finished_without_asking(
    held_back: bool, pool: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    if held_back:
        pool.relabel()
        assert pool.relabel(teacher=teacher("first")).outcome is RelabelOutcome.HELD_BACK
    changes = {"teacher": teacher("first" if held_back else "hash")}
    before = len(read_versions(pool.config.output))

    def kill(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException):  # noqa: B017
        patch.setattr(flows.relabel, "publish", kill)
        pool.relabel(**changes, publish=held_back)
    state = pool.relabel(**changes)
    assert state.outcome is RelabelOutcome.PUBLISHED
    assert len(read_versions(pool.config.output)) == before + 1
    assert (pool.config.output / "emit" / "record.json").exists()
    assert pool.relabel(**changes).outcome is RelabelOutcome.UNCHANGED


def test_a_deleted_set_is_made_again(pool: Watched) -> None:
    pool.relabel()
    before = pool.emitted()
    shutil.rmtree((pool.config.output / "emit").resolve())
    assert pool.relabel().outcome is RelabelOutcome.PUBLISHED
    assert (pool.emitted(), pool.asked()) == (before, 30)


def test_an_empty_set_is_not_published_even_with_publish(pool: Watched) -> None:
    pool.relabel()
    before = pool.emitted()
    strict = PseudoLabelSettings(target_precision=0.999999)
    for publish in (False, True):
        state = pool.relabel(pseudo_labels=strict, publish=publish)
        assert (state.outcome, state.why) == (RelabelOutcome.HELD_BACK, ("nothing is left to train on",))
    assert pool.emitted() == before


def test_failed_questions_are_asked_again_without_a_change(pool: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ScriptedEngine._answer

    def failing(self: ScriptedEngine, request: Request, *, malformed: bool) -> Generation:
        found = real(self, request, malformed=malformed)
        fails = request.sample_id.endswith("1")
        return found.model_copy(update={"outcome": Outcome.FAILED, "texts": ()}) if fails else found

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedEngine, "_answer", failing)
        pool.relabel(max_failed_share=0.5)
    failed = 30 - pool.asked()
    assert 0 < failed < 10
    assert pool.relabel(drift=LOOSE).outcome is RelabelOutcome.PUBLISHED
    assert pool.asked() == 30
    state = read_state(pool.config.output)
    assert state is not None and state.watched


def test_another_base_of_the_student_is_noticed(pool: Watched, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    config = pool.config.model_copy(update={"student": StudentSpec(base=str(base))})
    before = digest_watched_inputs(config)
    assert digest_watched_inputs(config) == before
    (base / "config.json").write_text('{"trained": "again"}')
    assert digest_watched_inputs(config) != before


def test_a_retried_run_has_only_the_rest_of_its_budget(prefect_server: PrefectServer) -> None:
    from flows.asking import charge_budget

    asked: list[int] = []

    @flow(retries=1)
    def tried_twice() -> None:
        with charge_budget(BudgetSettings(requests=5)) as budget:
            asked.append(budget.asked)
            assert budget.allow()
            if len(asked) == 1:
                raise ValueError("the engine died")

    tried_twice()
    tried_twice()
    assert asked == [0, 1, 0]


def test_what_was_looked_at_is_published_though_more_has_arrived(pool: Watched) -> None:
    pool.relabel()
    assert pool.relabel(teacher=teacher("first")).outcome is RelabelOutcome.HELD_BACK
    looked_at = (pool.config.output / "candidate").resolve()
    files = {file: file.read_bytes() for file in looked_at.rglob("*") if file.is_file()}
    pool.add(seed=6, count=10)
    asked = pool.asked()
    assert pool.relabel(teacher=teacher("first"), publish=True).outcome is RelabelOutcome.PUBLISHED
    assert (pool.config.output / "emit").resolve() == looked_at
    assert {file: file.read_bytes() for file in looked_at.rglob("*") if file.is_file()} == files
    assert pool.asked() == asked


def test_without_a_version_that_was_looked_at_nothing_is_published(pool: Watched) -> None:
    with pytest.raises(ConfigError, match="no version is held back"):
        pool.relabel(publish=True)
    pool.relabel()
    pool.relabel(teacher=teacher("first"))
    before = pool.emitted()
    shutil.copy(pool.config.output / "emit" / "kept.parquet", pool.config.output / "candidate" / "kept.parquet")
    with pytest.raises(ConfigError, match=r"candidate: version \w{12} is not the one that was held back"):
        pool.relabel(teacher=teacher("first"), publish=True)
    assert pool.emitted() == before


def test_publishing_is_undone_and_done_again(pool: Watched) -> None:
    old = pool.relabel()
    first = pool.emitted()
    pool.relabel(teacher=teacher("first"))
    pool.relabel(teacher=teacher("first"), publish=True)
    second = pool.emitted()
    undone = pool.relabel(teacher=teacher("first"), undo=True)
    assert (pool.emitted(), undone.version) == (first, old.version)
    assert pool.relabel(teacher=teacher("first")).why == undone.why  # not published again by itself
    assert pool.relabel(teacher=teacher("first"), publish=True).outcome is RelabelOutcome.PUBLISHED
    assert pool.emitted() == second


def test_without_an_earlier_version_there_is_nothing_to_undo(pool: Watched) -> None:
    pool.relabel()
    with pytest.raises(ConfigError, match="no earlier version is kept"):
        pool.relabel(undo=True)
