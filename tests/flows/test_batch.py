"""A run whose teacher is asked through a batch API: what its states say, and when a deployment looks again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.states import Running

from flows.api import schedule_next_run
from flows.config import DistillConfig
from flows.distill import distill
from tasks.errors import AnswersPending
from tasks.models.engines.spec import EngineSpec
from tasks.records import Prediction
from tasks.storage.rows import read_rows
from tasks.students.settings import ProbeSpec, StudentSpec
from tests.batch_stub import BatchOptions, running
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config

pytestmark = pytest.mark.timeout(600)


def configure(folder: Path, url: str) -> DistillConfig:
    teacher = EngineSpec(engine="server", model="stub", base_urls=(url,), batch=True)
    changes = {"teacher": teacher, "generator": None, "student": ProbeSpec(folds=2)}
    return small_config(folder, items=40).model_copy(update=changes)


def read_runs(after: datetime) -> dict[str, list[str]]:
    """Return the state names of each flow run since then, by the run's name."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_="demo")))
    found: dict[str, list[str]] = {}
    for run in sorted(runs, key=lambda run: run.created or after):
        if run.created is not None and run.created >= after and run.state is not None:
            found.setdefault(run.name, []).append(f"{run.state.type.value} {run.state.name}")
    return found


def test_a_run_ends_as_submitted_until_the_answers_are_there(prefect_server: PrefectServer, tmp_path: Path) -> None:
    began = datetime.now(UTC)
    with running(BatchOptions(lose=0.1, looks=0, spare_later=True)) as stub:
        config = configure(tmp_path, stub.url)
        first = distill(config)
        assert isinstance(first, AnswersPending)
        assert "teacher adjudicates suspicious labels: 0 of" in str(first)
        assert "teacher labels the pool: 0 of 40 answered. stub at 127.0.0.1" in str(first), "not only the first stage"
        assert not (config.output / "emit").exists()
        looks = 1
        while isinstance(result := distill(config), AnswersPending):
            looks += 1
            assert looks < 8
        bill = stub.stats()
    assert (bill["twice"], bill["billed"]) == (0, bill["answers"])
    assert {p.sample_id for p in read_rows(config.output / "pseudo_labels" / "predictions.parquet", Prediction)}
    assert result["emit"].kept > 0
    states = read_runs(began)
    assert states["distill: demo"] == ["COMPLETED Submitted"] * looks + ["COMPLETED Completed"]
    assert states["correction: demo"][0] == states["pseudo-labels: demo"][0] == "COMPLETED Submitted"


def test_students_that_learn_reasons_wait_for_these(prefect_server: PrefectServer, tmp_path: Path) -> None:
    with running(BatchOptions(looks=9)) as stub:
        config = configure(tmp_path, stub.url)
        student = StudentSpec(base="models/none", folds=2, reasons="always")
        waiting = distill(config.model_copy(update={"generator": config.teacher, "student": student}))
    assert isinstance(waiting, AnswersPending)
    assert "reasons: 0 of 40 answered" in str(waiting) and "teacher labels the pool: 0 of" in str(waiting)
    assert not (config.output / "correction").exists()


def test_a_deployment_looks_again_once(prefect_server: PrefectServer) -> None:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("batch-test")
        deployment = client.create_deployment(flow_id, "batch-test", parameters={"config": {"file": "run.yaml"}})
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, Running())
        run = client.read_flow_run(run.id)
        for _ in range(2):
            assert "The next look is scheduled within 30 minutes" in schedule_next_run(run)
        mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
        [later] = [r for r in client.read_flow_runs(flow_run_filter=mine) if r.id != run.id]
    assert later.state is not None and later.state.is_scheduled()
    assert later.parameters == {"config": {"file": "run.yaml"}}
    due = later.next_scheduled_start_time
    assert due is not None and abs(due - datetime.now(UTC) - timedelta(minutes=30)) < timedelta(minutes=5)


def test_a_run_from_a_terminal_schedules_nothing(prefect_server: PrefectServer) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(distill, parameters={})
    assert isinstance(run, FlowRun)
    assert schedule_next_run(run) == ""
