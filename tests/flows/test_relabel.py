"""Scheduled re-labelling: only new and changed items are asked about; drift, budgets and approval are respected."""

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, StateType

from flows.config import RelabelConfig
from tasks.dataset.diff import ChangeCounts, ChangeKind, compare_snapshots
from tasks.dataset.drift import RelabelOutcome, RelabelState, read_state
from tasks.dataset.settings import ApprovalSettings, DriftSettings, EmitSettings, ExportSpec, Format
from tasks.dataset.versions import open_snapshot, read_versions
from tasks.demo.dataset import draw_items
from tasks.items.settings import SourceConfig
from tasks.models.engines.spec import EngineSpec
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import AskSettings, BudgetSettings
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tests.conftest import PrefectServer

pytestmark = pytest.mark.timeout(300)


@dataclass
class Watched:
    """A pool that grows, and its re-labelling."""

    config: RelabelConfig

    def add(self, seed: int, count: int) -> None:
        """More items in the manifest."""
        assert self.config.unlabelled is not None
        manifest, images = self.config.unlabelled.manifest, self.config.unlabelled.images
        rows = json.loads(manifest.read_text("utf-8")) if manifest.exists() else []
        for item in draw_items(count, seed, prefix=f"s{seed}"):
            names = [f"{item.id}-{i}.png" for i in range(len(item.images))]
            for name, image in zip(names, item.images, strict=True):
                image.save(images / name)
            rows.append({"id": item.id, "instruction": item.instruction, "image": names})
        manifest.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")

    def relabel(self, **changes: Any) -> RelabelState:
        """Run the flow, with a changed configuration."""
        from flows.relabel import relabel

        return relabel(self.config.model_copy(update=changes))  # pyright: ignore

    def asked(self) -> int:
        """All questions that were ever paid for."""
        with Ledger(self.config.ledger) as ledger:
            return len(ledger)

    def emitted(self) -> bytes:
        """What trainers read."""
        return (self.config.output / "emit" / "kept.parquet").read_bytes()


@pytest.fixture
def pool(tmp_path: Path, prefect_server: PrefectServer) -> Watched:
    images = tmp_path / "images"
    images.mkdir()
    watched = Watched(
        RelabelConfig(
            pack="demo",
            unlabelled=SourceConfig(manifest=tmp_path / "pool.json", images=images),
            teacher=teacher("hash"),
            ask=AskSettings(votes=1),
            pseudo_labels=PseudoLabelSettings(target_precision=0.01),
            emit=EmitSettings(export=ExportSpec(formats=(Format.LLAMAFACTORY,))),
            output=tmp_path / "run",
            ledger=tmp_path / "ledger.sqlite",
            images=tmp_path / "cache",
            texts=tmp_path / "texts",
        )
    )
    watched.add(seed=5, count=30)
    return watched


def teacher(rule: str) -> EngineSpec:
    return EngineSpec(engine="scripted", model=f"scripted:{rule}")


def test_the_first_run_asks_all_the_next_only_new_items(pool: Watched) -> None:
    first = pool.relabel()
    assert (first.outcome, pool.asked()) == (RelabelOutcome.PUBLISHED, 30)
    before = pool.emitted()
    second = pool.relabel()
    assert (second.outcome, pool.asked(), second.version) == (RelabelOutcome.UNCHANGED, 30, first.version)
    pool.add(seed=6, count=10)
    third = pool.relabel(drift=DriftSettings(balance=1.0))
    assert (third.outcome, pool.asked()) == (RelabelOutcome.PUBLISHED, 40)
    log = read_versions(pool.config.output)
    assert [v.version for v in log] == [first.version, third.version]
    assert pool.emitted() != before
    counts = ChangeCounts()
    for change in compare_snapshots(*(open_snapshot(v.version, pool.config.output) for v in log)):
        counts.add(change)
    assert set(counts.kinds) <= {ChangeKind.ADDED, ChangeKind.MOVED} and counts.kinds[ChangeKind.ADDED] > 0


def test_a_budget_stops_the_run_and_the_next_one_continues(pool: Watched) -> None:
    small = BudgetSettings(requests=12)
    outcomes = []
    for _ in range(3):
        outcomes.append(pool.relabel(budget=small).outcome)
        assert pool.asked() <= 12 * len(outcomes)
    assert outcomes == [RelabelOutcome.BUDGET_SPENT, RelabelOutcome.BUDGET_SPENT, RelabelOutcome.PUBLISHED]
    assert pool.asked() == 30


def test_a_version_beyond_the_drift_is_held_back_until_released(pool: Watched) -> None:
    first = pool.relabel()
    before = pool.emitted()
    held = pool.relabel(teacher=teacher("first"))
    assert held.outcome is RelabelOutcome.HELD_BACK
    assert "labels changed" in held.why[0]
    assert (held.version, held.confidence) == (first.version, first.confidence)
    assert pool.emitted() == before
    assert len(read_versions(pool.config.output)) == 1
    again = pool.relabel(teacher=teacher("first"))
    assert (again.outcome, again.why) == (RelabelOutcome.UNCHANGED, held.why)
    released = pool.relabel(teacher=teacher("first"), publish=True)
    assert released.outcome is RelabelOutcome.PUBLISHED
    assert pool.emitted() != before
    assert pool.relabel(teacher=teacher("first")).why == ()


def test_nothing_left_to_train_on_is_never_published(pool: Watched) -> None:
    nothing = pool.relabel(pseudo_labels=PseudoLabelSettings(target_precision=0.999999))
    assert (nothing.outcome, nothing.why) == (RelabelOutcome.HELD_BACK, ("nothing is left to train on",))
    assert not (pool.config.output / "emit").exists()


def test_without_an_answer_in_time_it_is_held_back(pool: Watched) -> None:
    state = pool.relabel(approval=ApprovalSettings(ask="always", hours=2 / 3600))
    assert (state.outcome, state.why) == (RelabelOutcome.HELD_BACK, ("nobody answered within 0.000555556 hours",))


@pytest.mark.parametrize(("publish", "outcome"), [(True, RelabelOutcome.PUBLISHED), (False, RelabelOutcome.HELD_BACK)])
def test_a_persons_answer_decides(publish: bool, outcome: RelabelOutcome, pool: Watched) -> None:
    answered = threading.Thread(target=answer, args=({"publish": publish, "note": "looked at it"},))
    answered.start()
    state = pool.relabel(approval=ApprovalSettings(ask="always", hours=0.05))
    answered.join()
    assert state.outcome is outcome
    assert publish or state.why == ("a person rejected it: looked at it",)


def answer(values: dict[str, Any]) -> None:
    """Answer the one paused run as the form in the web UI does."""
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            named = FlowRunFilter(name=FlowRunFilterName(like_="relabel"))
            paused = [run for run in client.read_flow_runs(flow_run_filter=named) if is_paused(run)]
            if paused:
                client.resume_flow_run(paused[0].id, run_input=values)
                return
            time.sleep(0.5)
    raise AssertionError("no run was paused")


def is_paused(run: FlowRun) -> bool:
    return run.state_type is StateType.PAUSED


def test_the_state_survives_a_broken_file(pool: Watched) -> None:
    from tasks.errors import ManifestError

    pool.config.output.mkdir()
    (pool.config.output / "relabel.json").write_text("{")
    with pytest.raises(ManifestError, match=r"relabel\.json.*delete the file"):
        read_state(pool.config.output)
