"""`labelstill serve` with a run under it: cancelled from the web UI, its process killed, its worker killed."""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.states import Cancelling

from flows.service.serve import Worker
from flows.service.server import read_prefect_environment
from tasks.models.engines.vllm.options import find_installed_build
from tests.conftest import ROOT, free_port
from tests.flows.bad_days import SLOW, count_lost_items, count_reasked_answers, print_report, wait_for
from tests.flows.service.test_serve_restart import is_ready, read_state, start_serving, wait_until
from tests.flows.small_run import dump_config, small_config
from tests.flows.test_kill import count_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
GONE_SECONDS = 10
"""For children of a cancelled run."""
ENDED_SECONDS = 20
"""For its own process, which tells the server first; on a busy machine it took 10.6."""
_DEPLOYMENT = f"""
pull:
  - prefect.deployments.steps.set_working_directory: {{directory: {ROOT}}}
deployments:
  - name: distill
    entrypoint: flows.distill:distill
    tags: [labelstill]
    work_pool: {{name: cpu, job_variables: {{working_dir: {ROOT}}}}}
    concurrency_limit: {{limit: 1, collision_strategy: ENQUEUE}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder that is served: its own Prefect server, and workers that run the real `distill`."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "prefect.yaml").write_text(_DEPLOYMENT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABELSTILL_PORT", str(free_port()))
        for name, value in read_prefect_environment(folder).items():
            patch.setenv(name, value)
        with start_serving(folder):
            wait_until(lambda: is_ready(folder / "serve.log"))
            yield folder


def make_light_config(folder: Path, **changes: object) -> dict[str, Any]:
    return dump_config(small_config(folder, slow=SLOW)) | {"student": None} | changes


def start_run(config: dict[str, Any]) -> UUID:
    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        deployment = client.read_deployment_by_name("labelstill-distill/distill")
        return client.create_flow_run_from_deployment(deployment.id, parameters={"config": config}).id


def cancel(run: UUID) -> None:
    """What the button in the web UI does."""
    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        client.set_flow_run_state(run, Cancelling())


def read_subflow_states(run: UUID) -> set[str | None]:
    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
        return {subflow.state_name for subflow in client.read_flow_runs(flow_run_filter=below)}


def find_engine(run: UUID) -> psutil.Process:
    """The process that executes the run."""
    engine = find_running_engine(run)
    assert engine is not None, f"no process executes {run}"
    return engine


def find_running_engine(run: UUID) -> psutil.Process | None:
    for process in psutil.process_iter():
        try:
            if "prefect.engine" in process.cmdline() and process.environ()["PREFECT__FLOW_RUN_ID"] == str(run):
                return process
        except (psutil.Error, KeyError, OSError):
            continue
    return None


def wait_until_gone(family: list[psutil.Process]) -> float:
    began = time.monotonic()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, alive
    return time.monotonic() - began


def is_complete(folder: Path) -> bool:
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def check_next_run(folder: Path, config: dict[str, Any], fault: str, seen: str) -> None:
    """The next run resumes and completes: nothing asked again that the ledger has, nothing lost."""
    assert is_complete(folder)
    kept, since = count_answers(folder), time.time()
    run = start_run(config)
    wait_until(lambda: read_state(run) == "Completed")
    again, missing = count_reasked_answers(folder, kept, since), count_lost_items(folder / "run")
    print_report(fault, seen, again, missing)
    assert (again, missing) == (0, 0)


def test_the_process_of_a_run_is_killed(project: Path, tmp_path: Path) -> None:
    config = make_light_config(tmp_path)
    run = start_run(config)
    wait_until(lambda: count_answers(tmp_path) >= 20)
    find_engine(run).kill()
    wait_until(lambda: read_state(run) == "Crashed")
    wait_until(lambda: not {"Running", "Pending"} & read_subflow_states(run))
    check_next_run(tmp_path, config, "kill -9 of the flow process", "the run is Crashed; the next one goes on")


def test_the_worker_is_killed(project: Path, tmp_path: Path) -> None:
    config = make_light_config(tmp_path)
    run = start_run(config)
    wait_until(lambda: count_answers(tmp_path) >= 20)
    program = Worker(project, "cpu", "").program
    (worker,) = program.find()
    worker.kill()
    worker.wait(timeout=20)
    wait_until(lambda: bool(program.find()))
    wait_until(lambda: read_state(run) in {"Completed", "Crashed"})
    seen = f"serve starts another worker; the run is {read_state(run)}"
    wait_until(lambda: find_running_engine(run) is None)
    check_next_run(tmp_path, config, "kill -9 of the worker", seen)


def test_cancelled_while_a_student_is_trained(project: Path, tmp_path: Path) -> None:
    student = small_config(tmp_path, slow=SLOW).student
    assert student is not None
    longer = student.model_copy(update={"epochs": 200}).model_dump(mode="json")
    run = start_run(make_light_config(tmp_path, student=longer))
    wait_until(lambda: any((tmp_path / "run/correction/students").glob(".*.part/trainer/checkpoint-*")))
    engine = find_engine(run)
    cancel(run)
    ended = wait_until_gone([engine])
    wait_until(lambda: read_state(run) in {"Cancelled", "Crashed"})
    assert read_state(run) == "Cancelled"
    wait_until(lambda: not {"Running", "Pending", "Cancelling"} & read_subflow_states(run))
    fault = "cancelled in the web UI while a student is trained"
    check_next_run(tmp_path, make_light_config(tmp_path), fault, f"Cancelled; its process gone after {ended:.1f} s")
    assert ended < ENDED_SECONDS


@pytest.mark.vllm
@pytest.mark.skipif(find_installed_build() is None, reason="no vLLM here")
def test_cancelled_while_vllm_answers(project: Path, tmp_path: Path) -> None:
    base = tmp_path / "shared" / "base"
    vllm = {"engine": "vllm", "model": str(base), "dtype": "float32"}
    small_config(tmp_path)
    run = start_run(make_light_config(tmp_path, generator=vllm, teacher=vllm))
    wait_for(lambda: count_answers(tmp_path) >= 5, seconds=600)  # vLLM takes minutes to start on a busy machine
    engine = find_engine(run)
    children = engine.children(recursive=True)
    assert any(process.name().startswith("VLLM::Engine") for process in children)
    cancel(run)
    gone = wait_until_gone(children)
    ended = gone + wait_until_gone([engine])
    wait_until(lambda: read_state(run) in {"Cancelled", "Crashed"})
    assert read_state(run) == "Cancelled"
    seen = f"Cancelled; vLLM gone after {gone:.1f} s, the run's process after {ended:.1f} s"
    check_next_run(tmp_path, make_light_config(tmp_path), "cancelled in the web UI while vLLM answers", seen)
    assert gone < GONE_SECONDS and ended < ENDED_SECONDS
