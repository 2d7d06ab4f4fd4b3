"""`<output>/metrics.prom` says what a run does and how it ended, in the format that Prometheus reads."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow
from prometheus_client.parser import text_string_to_metric_families

import flows.metrics as room
from flows.metrics import account, watched
from tasks.errors import BudgetSpent
from tasks.models.costs import Costs
from tasks.records import Dropped, Sample
from tasks.storage.stages import StageRecord, write_stage
from tests.tasks.making import sample

pytestmark = pytest.mark.usefixtures("prefect_server")


def read(output: Path) -> dict[tuple[str, ...], float]:
    """Value by name and labels, the output left out."""
    text = (output / "metrics.prom").read_text(encoding="utf-8")
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            assert one.labels["output"] == str(output)
            labels = (one.labels.get(name) for name in ("stage", "outcome", "kind", "reason"))
            found[(one.name, *(label for label in labels if label is not None))] = one.value
    return found


def run(output: Path, work: Callable[[], None]) -> None:
    @flow
    def watched_flow() -> None:
        with watched(output):
            work()

    watched_flow()


def leave_record(output: Path, stage: str, costs: Costs) -> None:
    kept: list[Sample] = [sample("a"), sample("b")]
    gone = [Dropped(sample_id="c", stage=stage, reason="image_missing", detail="")]
    record = StageRecord(stage=stage, recipe="r", read=0, kept=0, dropped=0, seconds=1.5, costs=costs)
    write_stage(output / stage, record, kept, gone, ["a", "b", "c"])


def test_counters_of_a_stage_under_way_give_way_to_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_SECONDS", 0.1)
    seen: list[dict[tuple[str, ...], float]] = []

    def look() -> None:
        file, writings = tmp_path / "metrics.prom", set[int]()
        deadline = time.monotonic() + 60
        while len(writings) < 3 and time.monotonic() < deadline:  # the second after this moment knows what is now
            if file.exists():
                writings.add(file.stat().st_mtime_ns)
            time.sleep(0.01)
        seen.append(read(tmp_path))

    def work() -> None:
        account(tmp_path, "rationales", lambda: Costs(asked=3, reused=1, tokens_in=50, tokens_cached=20, cost=0.25))
        look()
        leave_record(tmp_path, "rationales", Costs(asked=5, reused=1, failed=2, tokens_out=9, utilisation=0.9))
        look()

    run(tmp_path, work)
    during, after = seen
    assert during["labelstill_running",] == 1
    assert ("labelstill_last_success_timestamp_seconds",) not in during
    assert during["labelstill_answers_total", "rationales", "asked"] == 3
    assert during["labelstill_tokens_total", "rationales", "cached"] == 20
    assert during["labelstill_cost_total", "rationales"] == 0.25
    assert after["labelstill_answers_total", "rationales", "asked"] == 5
    assert after["labelstill_answers_total", "rationales", "failed"] == 2
    assert after["labelstill_engine_utilisation_ratio", "rationales"] == 0.9
    assert after["labelstill_items", "rationales", "kept", ""] == 2
    assert after["labelstill_items", "rationales", "dropped", "image_missing"] == 1
    assert after["labelstill_stage_seconds", "rationales"] == 1.5
    assert ("labelstill_cost_total", "rationales") not in after  # without prices nothing is known of money
    ended = read(tmp_path)
    assert ended["labelstill_running",] == 0
    assert abs(ended["labelstill_last_success_timestamp_seconds",] - time.time()) < 30


def test_a_failed_run_keeps_the_time_of_the_last_good_one(tmp_path: Path) -> None:
    run(tmp_path, lambda: None)
    good = read(tmp_path)

    def fail() -> None:
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        run(tmp_path, fail)
    bad = read(tmp_path)
    success = ("labelstill_last_success_timestamp_seconds",)
    assert bad[success] == good[success]
    assert bad["labelstill_running",] == 0
    assert bad["labelstill_started_timestamp_seconds",] > good["labelstill_started_timestamp_seconds",]


def test_a_run_that_has_spent_its_budget_has_gone_well(tmp_path: Path) -> None:
    def spend() -> None:
        raise BudgetSpent("the budget is spent")

    with pytest.raises(BudgetSpent):
        run(tmp_path, spend)
    assert ("labelstill_last_success_timestamp_seconds",) in read(tmp_path)


def test_a_stage_of_a_larger_run_does_not_end_it(tmp_path: Path) -> None:
    def work() -> None:
        with watched(tmp_path):
            pass
        time.sleep(0.1)
        assert read(tmp_path)["labelstill_running",] == 1

    run(tmp_path, work)


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics.prom").mkdir()
    run(tmp_path, lambda: None)
    assert len([r for r in caplog.records if "metrics.prom can't be written" in r.getMessage()]) == 1
