import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from flows.service.prefect_plugin import (
    get_prefect_arguments,
    is_deployment_run,
    is_flow_process,
    survive_lost_lease,
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


def run_in_project_root(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PREFECT, "deployment", "run", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def find_created_run(client: SyncPrefectClient, output: str) -> FlowRun:
    run_id = next(line.split()[-1] for line in output.splitlines() if "UUID:" in line)
    return next(run for run in client.read_flow_runs() if str(run.id) == run_id)


@pytest.mark.parametrize("name", ["only", "alone/only"])
def test_a_deployment_starts_by_its_name_with_or_without_the_flow(deployments: SyncPrefectClient, name: str) -> None:
    done = run_in_project_root(name)
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = deployments.read_deployment_by_name("alone/only")
    assert find_created_run(deployments, done.stdout).deployment_id == deployment.id


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "No deployment is named 'nothing'. Register this project's deployments with: make serve"),
        ("twice", "'twice' is the name of 2 deployments. Give the full name: one/twice, two/twice"),
    ],
)
def test_an_unknown_or_ambiguous_name_gives_one_line(deployments: SyncPrefectClient, name: str, message: str) -> None:
    before = deployments.count_flow_runs()
    done = run_in_project_root(name)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (1, "", [message])
    assert deployments.count_flow_runs() == before


def test_an_unknown_name_with_a_slash_is_left_to_prefect(deployments: SyncPrefectClient) -> None:
    done = run_in_project_root("alone/nothing")
    assert done.returncode == 1
    assert "Deployment 'alone/nothing' not found!" in done.stdout


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        (["/v/bin/python", "/v/bin/prefect", "deployment", "run", "distill"], is_deployment_run),
        (["python", "-m", "prefect", "--no-prompt", "deployment", "run", "distill"], is_deployment_run),
        (["/v/bin/python", "/v/bin/prefect", "deploy", "--all"], None),
        (["/v/bin/python", "-m", "prefect.engine"], is_flow_process),
        (["/v/bin/python", "/v/bin/prefect", "flow-run", "execute"], is_flow_process),
        (["/v/bin/python", "/v/bin/prefect", "deployment", "delete", "run"], None),
        (["python", "-m", "prefect", "worker", "start", "--pool", "gpu"], None),
        (["python", "app.py", "deployment", "run"], None),
        (["python", "-m", "pytest", "prefect"], None),
    ],
)
def test_only_two_client_commands_are_patched(command: list[str], changed: object) -> None:
    words = get_prefect_arguments(command)
    assert [one for one in (is_deployment_run, is_flow_process) if one(words)] == [changed] * bool(changed)


def test_a_lost_lease_does_not_end_a_run(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[object] = []

    def gone(*arguments: object) -> object:
        asked.append(arguments)
        raise OSError("410 Gone")

    logger = logging.getLogger("prefect.labelstill")
    logger.addHandler(caplog.handler)
    try:
        survive_lost_lease(gone)("the client", "a lease", 300)  # pyright: ignore[reportArgumentType]
    finally:
        logger.removeHandler(caplog.handler)
    assert asked == [("the client", "a lease", 300)]
    assert "410 Gone" in caplog.text
