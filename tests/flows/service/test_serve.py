import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Running

from flows.service.deployments import (
    Service,
    ServiceError,
    register_deployments,
    runs_not_done,
    start_worker,
    stop_workers,
    worker_name,
    worker_running,
)
from flows.service.follow import crash_stale_runs, living_run_ids
from flows.service.pools import CPU
from flows.service.serve import Tender, demo_in_service, stop
from flows.service.server import ServerError
from tests.conftest import ROOT, PrefectServer

FLOW = """
import time
from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient

@flow
def inner(seconds: float):
    get_run_logger().info("inner works")
    time.sleep(seconds)

@flow
def demo(config: dict):
    get_run_logger().info("outer works, its lease renewed by %s", SyncPrefectClient.renew_concurrency_lease.__module__)
    inner(config.get("seconds", 0))
    if config.get("fails"):
        raise ValueError("as asked")
"""
DEPLOYMENTS = """
pull:
  - prefect.deployments.steps.set_working_directory: {directory: .}
deployments:
  - name: demo
    entrypoint: throwaway.py:demo
    parameters: {config: {}}
    work_pool: {name: cpu, job_variables: {working_dir: .}}
"""


@pytest.fixture(scope="module")
def service(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A project with one throwaway flow, on the tests' server."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "throwaway.py").write_text(FLOW, encoding="utf-8")
    (root / "prefect.yaml").write_text(DEPLOYMENTS, encoding="utf-8")
    service = Service(root, prefect_server.api_url)
    yield service
    stop_workers(service)


def test_a_run_is_followed_to_its_end(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo_in_service({}, service.root) == 0
    printed = capsys.readouterr().out
    assert "outer works, its lease renewed by flows.service.prefect_plugin" in printed
    assert "inner works" in printed
    assert f"{service.ui_url}/runs/flow-run/" in printed.splitlines()[-1]
    assert not worker_running(service, CPU)


def test_deployments_are_registered_once(service: Service) -> None:
    register_deployments(service)
    assert not register_deployments(service)


def test_a_worker_that_was_left_running_is_stopped(service: Service) -> None:
    start_worker(service, CPU)
    assert worker_running(service, CPU)
    assert stop(service.root)
    assert not worker_running(service, CPU)
    assert not stop(service.root)


def test_a_failed_run_is_a_non_zero_exit_code(service: Service) -> None:
    assert demo_in_service({"fails": True}, service.root) == 1


@pytest.mark.slow
def test_a_run_whose_processes_were_killed_is_crashed_and_started_anew(service: Service) -> None:
    register_deployments(service)
    with service.client() as client:
        deployment = client.read_deployment_by_name("demo/demo")
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"config": {"seconds": 300}})
        start_worker(service, CPU)
        deadline = time.monotonic() + 120
        while run.id not in living_run_ids() or client.read_flow_run(run.id).state_name != "Running":
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert crash_stale_runs(client, CPU, worker_name(CPU), worker_lives=True) == []
        worker = service.worker(CPU).process()
        assert worker is not None
        for process in (worker, *worker.children(recursive=True)):
            process.kill()
        while run.id in living_run_ids():
            time.sleep(0.1)
        assert crash_stale_runs(client, CPU, "another machine's worker", worker_lives=True) == []
        assert [one.id for one in runs_not_done(client, deployment.id)] == [run.id]
        assert demo_in_service({}, service.root) == 0
        assert client.read_flow_run(run.id).state_name == "Crashed"


def test_a_server_that_cannot_be_started_now_is_said_once_and_tried_again(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = ["taken", "taken, says line 2 of the log", "", "taken again"]
    tried: list[Path | None] = []

    def find(timeout: float = 180, root: Path | None = None) -> str:
        tried.append(root)
        if fault := faults[len(tried) - 1]:
            raise ServerError(fault)
        return service.api_url

    monkeypatch.setattr("flows.service.serve.find_or_start_server", find)
    monkeypatch.setattr(Service, "owns_server", True)
    tender = Tender(service, [])
    for _ in faults:
        tender(None)
    assert tried == [service.root] * len(faults)
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("This is tried again")]
    assert said == ["taken", "taken again"]


def test_a_run_that_is_deleted_while_it_is_looked_at_ends_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_deployments(service)
    with service.client() as client:
        deployment = client.read_deployment_by_name("demo/demo")
        run = client.create_flow_run_from_deployment(deployment.id)
        client.update_flow_run_labels(run.id, {"prefect.worker.name": worker_name(CPU)})
        client.set_flow_run_state(run.id, Running(), force=True)
        deleted: list[UUID] = []

        def living() -> set[UUID]:
            """Called between the listing of runs and their marks."""
            deleted.append(run.id)
            client.delete_flow_run(run.id)
            return set()

        monkeypatch.setattr("flows.service.follow.living_run_ids", living)
        monkeypatch.setattr("flows.service.serve.worker_running", lambda *_: True)
        Tender(service, [CPU]).tend_workers()
        assert deleted == [run.id]
        with pytest.raises(ObjectNotFound):
            client.read_flow_run(run.id)


def test_a_flow_that_cannot_be_loaded_is_named(service: Service, tmp_path: Path) -> None:
    shutil.copytree(service.root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".prefect"))
    (tmp_path / "throwaway.py").write_text("import no_such_module\n", encoding="utf-8")
    with pytest.raises(ServiceError, match=r"Could not find object 'demo' in 'throwaway\.py'"):
        register_deployments(Service(tmp_path, service.api_url))
