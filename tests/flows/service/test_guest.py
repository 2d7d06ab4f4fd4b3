"""A guest on another server: password and profile are used, and what is not labelstill's stays as it is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Cancelled

from flows.service.serve import list_deployments
from flows.service.server import choose_environment
from tests.conftest import ROOT, free_port, start_prefect_server

AUTH = "anna:geheim"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The API address of a Prefect server with a password."""
    port = str(free_port())
    own = {
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    with start_prefect_server(own["PREFECT_API_URL"], tmp_path / "server.log", own):
        yield own["PREFECT_API_URL"]


def read_everything(client: SyncPrefectClient) -> dict[str, Any]:
    """What other projects have on the server, by kind: pools, deployments, runs, automations and variables."""
    with httpx.Client(base_url=str(client.api_url), auth=httpx.BasicAuth(*AUTH.split(":"))) as plain:
        kinds = ("work_pools", "deployments", "flow_runs", "automations", "variables")
        found = {kind: plain.post(f"{kind}/filter", json={}).raise_for_status().json() for kind in kinds}
    for run in found["flow_runs"]:
        for name in ("estimated_run_time", "estimated_start_time_delta", "total_run_time"):
            del run[name]  # computed when it is read
    ours = {"labelstill-gpu", "labelstill-cpu"}
    return {
        kind: [
            thing
            for thing in things
            if not (
                thing["name"] in ours
                or thing["name"].startswith("labelstill: ")
                or "labelstill" in thing.get("tags", [])
            )
        ]
        for kind, things in found.items()
    }


def run_command(api_url: str, code: str, auth: str = AUTH) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PREFECT_API_URL": api_url, "PREFECT_API_AUTH_STRING": auth}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


ALERTS = "import sys; sys.argv[1:] = ['alerts']; from flows.commands.main import main; main()"
REGISTER = """
from flows.api import open_client
from flows.service.serve import register_deployments
from flows.service.server import get_project_root
import os
with open_client(os.environ["PREFECT_API_URL"]) as client:
    register_deployments(client, get_project_root())
"""


@pytest.mark.timeout(400)
def test_commands_work_with_a_password_and_leave_another_project_alone(guarded: str) -> None:
    with SyncPrefectClient(guarded, auth_string=AUTH) as client:
        for pool in ("gpu", "cpu"):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        for name in ("distill", "evaluate"):  # the same names as ours
            made = client.create_flow(flow(name=name)(lambda: None))
            deployment = client.create_deployment(made, name=name, work_pool_name="gpu")
            run = client.create_flow_run_from_deployment(deployment)
            client.set_flow_run_state(run.id, Cancelled())  # the server itself would call it late
        before = read_everything(client)
        done = run_command(guarded, ALERTS)
        assert done.returncode == 0 and "labelstill: failed: created" in done.stdout, done.stderr
        done = run_command(guarded, REGISTER)
        assert done.returncode == 0, done.stderr
        assert json.dumps(read_everything(client)) == json.dumps(before)
        for name in list_deployments(ROOT):
            assert client.read_deployment_by_name(name).tags
        taken = client.read_deployment_by_name("labelstill-emit/emit")
        client.delete_deployment(taken.id)
        client.create_deployment(taken.flow_id, name="emit", tags=["another"])
        done = run_command(guarded, REGISTER)
        assert "another deployment 'labelstill-emit/emit'" in done.stderr
        assert client.read_deployment_by_name("labelstill-emit/emit").tags == ["another"]
    done = run_command(guarded, ALERTS, auth="anna:wrong")
    assert done.returncode == 2 and "refuses this client. Set PREFECT_API_AUTH_STRING" in done.stderr
    assert "Traceback" not in done.stderr


PROFILES = """
active = "work"
[profiles.work]
PREFECT_API_URL = "https://prefect.example/api"
PREFECT_API_KEY = "pnu_1"
[profiles.plain]
PREFECT_LOGGING_LEVEL = "DEBUG"
"""


def test_a_profile_that_names_a_server_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "profiles.toml"))
    assert "127.0.0.1" in choose_environment({})["PREFECT_API_URL"]
    (tmp_path / "profiles.toml").write_text(PROFILES, encoding="utf-8")
    chosen = choose_environment({})
    assert (chosen["PREFECT_API_URL"], chosen["PREFECT_API_KEY"]) == ("https://prefect.example/api", "pnu_1")
    assert "PREFECT_API_URL" not in choose_environment({"PREFECT_API_URL": "http://10.0.0.5:4200/api"})
    monkeypatch.setenv("PREFECT_PROFILE", "plain")
    assert "127.0.0.1" in choose_environment({})["PREFECT_API_URL"]


def test_the_password_of_the_own_server_is_also_the_clients() -> None:
    assert choose_environment({"PREFECT_SERVER_API_AUTH_STRING": AUTH})["PREFECT_API_AUTH_STRING"] == AUTH
    elsewhere = {"PREFECT_SERVER_API_AUTH_STRING": AUTH, "PREFECT_API_URL": "https://prefect.example/api"}
    assert "PREFECT_API_AUTH_STRING" not in choose_environment(elsewhere)
