import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from flows.service.deployments import deployment_names
from flows.service.pools import POOLS
from flows.service.prefect_plugin import (
    is_deploy,
    is_deployment_run,
    is_flow_process,
    outliving_its_lease,
    words_after_prefect,
)
from tests.conftest import ROOT, PrefectServer

PREFECT = Path(sys.executable).parent / "prefect"


@pytest.fixture(scope="module")
def deployments(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Deployments: alone/only, one/twice and two/twice."""
    with SyncPrefectClient(prefect_server.api_url) as client:
        for flow, name in (("alone", "only"), ("one", "twice"), ("two", "twice")):
            client.create_deployment(client.create_flow_from_name(flow), name)
        yield client


def type_in_the_projects_root(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PREFECT, "deployment", "run", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def created(client: SyncPrefectClient, output: str) -> FlowRun:
    run_id = next(line.split()[-1] for line in output.splitlines() if "UUID:" in line)
    return next(run for run in client.read_flow_runs() if str(run.id) == run_id)


@pytest.mark.parametrize("name", ["only", "alone/only"])
def test_a_name_with_and_without_its_flow_starts_the_deployment(deployments: SyncPrefectClient, name: str) -> None:
    done = type_in_the_projects_root(name)
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = deployments.read_deployment_by_name("alone/only")
    assert created(deployments, done.stdout).deployment_id == deployment.id


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "No deployment is named 'nothing'. Register this project's with: make serve"),
        ("twice", "'twice' is the name of 2 deployments, say which: one/twice, two/twice"),
    ],
)
def test_an_unknown_or_ambiguous_name_is_one_line(deployments: SyncPrefectClient, name: str, said: str) -> None:
    before = deployments.count_flow_runs()
    done = type_in_the_projects_root(name)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (1, "", [said])
    assert deployments.count_flow_runs() == before


def test_an_unknown_name_with_a_slash_is_left_to_prefect(deployments: SyncPrefectClient) -> None:
    done = type_in_the_projects_root("alone/nothing")
    assert done.returncode == 1
    assert "Deployment 'alone/nothing' not found!" in done.stdout


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        (["/v/bin/python", "/v/bin/prefect", "deployment", "run", "distill"], is_deployment_run),
        (["python", "-m", "prefect", "--no-prompt", "deployment", "run", "distill"], is_deployment_run),
        (["/v/bin/python", "/v/bin/prefect", "deploy", "--all"], is_deploy),
        (["python", "-m", "prefect", "--no-prompt", "deploy", "--all"], is_deploy),
        (["/v/bin/python", "-m", "prefect.engine"], is_flow_process),
        (["/v/bin/python", "/v/bin/prefect", "flow-run", "execute"], is_flow_process),
        (["/v/bin/python", "/v/bin/prefect", "deployment", "delete", "deploy"], None),
        (["python", "-m", "prefect", "worker", "start", "--pool", "gpu"], None),
        (["python", "app.py", "deployment", "run"], None),
        (["python", "-m", "pytest", "prefect"], None),
    ],
)
def test_only_three_commands_are_changed(command: list[str], changed: object) -> None:
    words = words_after_prefect(command)
    assert [one for one in (is_deployment_run, is_deploy, is_flow_process) if one(words)] == [changed] * bool(changed)


@pytest.mark.timeout(400)
def test_deploy_all_of_a_fresh_clone_makes_the_pools(prefect_server: PrefectServer, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, clone], check=True)
    for name in ("prefect.yaml", "pyproject.toml"):  # as they are here, committed or not
        (clone / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run([PREFECT, "deploy", "--all"], cwd=clone, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with SyncPrefectClient(prefect_server.api_url) as client:
        assert {pool.name for pool in client.read_work_pools()} >= set(POOLS)
        for full_name in deployment_names(clone):
            deployment = client.read_deployment_by_name(full_name)
            assert not deployment.paused
            assert deployment.enforce_parameter_schema
            assert deployment.work_pool_name in POOLS
            assert deployment.concurrency_options is not None
            assert deployment.concurrency_options.collision_strategy == "ENQUEUE"
            assert deployment.global_concurrency_limit is not None
            assert deployment.global_concurrency_limit.limit == 1
            assert not [one for one in deployment.schedules if one.active]


def test_a_lease_that_is_lost_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[object] = []

    def gone(*arguments: object) -> object:
        asked.append(arguments)
        raise OSError("410 Gone")

    logger = logging.getLogger("prefect.labelstill")
    logger.addHandler(caplog.handler)
    try:
        outliving_its_lease(gone)("the client", "a lease", 300)  # pyright: ignore[reportArgumentType]
    finally:
        logger.removeHandler(caplog.handler)
    assert asked == [("the client", "a lease", 300)]
    assert "410 Gone" in caplog.text
