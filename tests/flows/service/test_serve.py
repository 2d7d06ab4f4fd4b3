import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.service.processes import ServerError
from flows.service.serve import Worker, list_deployments, list_pools, register_deployments, restart_dead, stop
from tests.conftest import ROOT, PrefectServer

FLOW = """
import time
from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient

@flow
def inner(seconds: float):
    get_run_logger().info("inner works")
    time.sleep(seconds)

@flow(name="labelstill-demo")
def demo(config: dict):
    get_run_logger().info("outer works, its lease renewed by %s", SyncPrefectClient.renew_concurrency_lease.__module__)
    inner(config.get("seconds", 0))
"""
DEPLOYMENTS = """
pull:
  - prefect.deployments.steps.set_working_directory: {directory: .}
deployments:
  - name: demo
    entrypoint: throwaway.py:demo
    tags: [labelstill]
    parameters: {config: {}}
    work_pool: {name: cpu, job_variables: {working_dir: .}}
"""


@pytest.fixture(scope="module")
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(prefect_server.api_url) as client:
        yield client


@pytest.fixture(scope="module")
def project(client: SyncPrefectClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with one throwaway flow, registered on the tests' server."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "throwaway.py").write_text(FLOW, encoding="utf-8")
    (root / "prefect.yaml").write_text(DEPLOYMENTS, encoding="utf-8")
    assert register_deployments(client, root)
    yield root
    stop(root)


@pytest.fixture
def worker(project: Path, prefect_server: PrefectServer) -> Worker:
    return Worker(project, "cpu", prefect_server.api_url)


def start_run(client: SyncPrefectClient, seconds: float) -> UUID:
    deployment = client.read_deployment_by_name("labelstill-demo/demo")
    return client.create_flow_run_from_deployment(deployment.id, parameters={"config": {"seconds": seconds}}).id


def wait_for(moment: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def read_state(client: SyncPrefectClient, run: UUID) -> str | None:
    return client.read_flow_run(run).state_name


def test_deployments_are_registered_once(client: SyncPrefectClient, project: Path) -> None:
    assert not register_deployments(client, project)


def test_a_worker_executes_a_run_that_outlives_its_lease(
    client: SyncPrefectClient, project: Path, worker: Worker
) -> None:
    worker.keep_up()
    run = start_run(client, 0)
    wait_for(lambda: read_state(client, run) == "Completed")
    log = worker.program.log.read_text(encoding="utf-8")
    assert "outer works, its lease renewed by flows.service.prefect_plugin" in log
    assert "inner works" in log


def test_a_dead_worker_is_restarted_and_a_running_one_is_not(worker: Worker) -> None:
    worker.keep_up()
    (process,) = worker.program.find()
    worker.keep_up()
    assert worker.program.find() == [process]
    process.kill()
    wait_for(lambda: not worker.program.find())
    worker.keep_up()
    wait_for(lambda: bool(worker.program.find()), seconds=10)
    assert worker.program.find() != [process]


def test_stopping_ends_the_worker_and_its_run_reports_a_crash(
    client: SyncPrefectClient, project: Path, worker: Worker
) -> None:
    worker.keep_up()
    log = worker.program.log
    before = log.read_text(encoding="utf-8").count("inner works")  # of other tests' runs
    run = start_run(client, 3600)
    wait_for(lambda: log.read_text(encoding="utf-8").count("inner works") > before)
    assert stop(project)
    assert not worker.program.find()
    assert read_state(client, run) == "Crashed"
    assert not stop(project)


def test_a_run_that_is_too_slow_to_report_its_crash_is_reported(
    client: SyncPrefectClient, project: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.service.serve._STOP_SECONDS", 0.0)
    worker.keep_up()
    run = start_run(client, 3600)
    wait_for(lambda: read_state(client, run) == "Running")
    assert stop(project)
    assert read_state(client, run) == "Crashed"


def test_a_worker_that_keeps_dying_is_named_with_the_end_of_its_log(worker: Worker) -> None:
    worker.program.log.write_text("the GPU is gone\n", encoding="utf-8")
    tired = Worker(worker.root, worker.pool, worker.api_url, deque([time.monotonic()] * 4, maxlen=4))
    with pytest.raises(ServerError, match=r"(?s)pool cpu stopped 4 times within 600 s.*the GPU is gone"):
        tired.keep_up()


def test_a_failed_start_is_printed_once_and_retried(capsys: pytest.CaptureFixture[str]) -> None:
    faults = ["taken", "taken, says line 2 of the log", "", "taken again"]
    tried: list[str] = []

    def start() -> None:
        tried.append(faults[len(tried)])
        if tried[-1]:
            raise ServerError(tried[-1])

    failed: set[int] = set()
    for _ in faults:
        restart_dead([start], failed)
    assert tried == faults
    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("Starting it will be")]
    assert printed == ["taken", "taken again"]


def test_a_flow_that_cannot_be_loaded_is_named(client: SyncPrefectClient, project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".prefect"))
    (tmp_path / "throwaway.py").write_text("import no_such_module\n", encoding="utf-8")
    with pytest.raises(ServerError, match=r"Could not find object 'demo' in 'throwaway\.py'"):
        register_deployments(client, tmp_path)


@pytest.mark.timeout(400)
def test_the_deployments_of_a_fresh_clone_and_their_pools_are_made(client: SyncPrefectClient, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, clone], check=True)
    for name in ("prefect.yaml", "pyproject.toml"):  # as they are here, committed or not
        (clone / name).write_bytes((ROOT / name).read_bytes())
    assert register_deployments(client, clone)
    assert (
        {pool.name for pool in client.read_work_pools()}
        >= set(list_pools(clone))
        == {"labelstill-cpu", "labelstill-gpu"}
    )
    for full_name in list_deployments(clone):
        deployment = client.read_deployment_by_name(full_name)
        assert not deployment.paused
        assert deployment.enforce_parameter_schema
        assert deployment.concurrency_options is not None
        assert deployment.concurrency_options.collision_strategy == "ENQUEUE"
        assert deployment.global_concurrency_limit is not None
        assert deployment.global_concurrency_limit.limit == 1
        assert not [one for one in deployment.schedules if one.active]
