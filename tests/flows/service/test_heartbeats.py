"""A run without heartbeats is marked Crashed; a paused one, and one that holds the interpreter, are not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.states import Completed, Pending, Running, Suspended

from flows.service.alerts import AUTOMATIONS, apply_automations
from tests.conftest import ROOT, PrefectServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WINDOW = 150

_RUN = """
import ctypes, sys, time
from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

class Answer(RunInput):
    publish: bool

def train(seconds):
    # PyDLL keeps the interpreter lock, as a long step of a trainer does: no other thread moves for two seconds
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ctypes.PyDLL(None).sleep(2)

@flow(name="labelstill-evaluate", flow_run_name=sys.argv[1])
def run():
    if sys.argv[1] == "paused":
        pause_flow_run(wait_for_input=Answer, timeout=3600, poll_interval=5)
    elif sys.argv[1] == "trains":
        train(float(sys.argv[2]))
    else:
        time.sleep(float(sys.argv[2]))

run()
"""


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(prefect_server.api_url) as client:
        yield client
        for automation in client.read_automations():
            client.delete_automation(automation.id)


def start_process(name: str, seconds: float) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", _RUN, name, str(seconds)], cwd=ROOT, start_new_session=True)


def wait_for(moment: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not moment() and time.monotonic() < deadline:
        time.sleep(0.5)


def read_states(client: SyncPrefectClient, *names: str) -> dict[str, str | None]:
    found = {run.name: run.state_name for run in client.read_flow_runs(limit=200)}
    return {name: found.get(name) for name in names}


def test_only_a_run_whose_process_died_is_marked_crashed(client: SyncPrefectClient) -> None:
    apply_automations(client)
    processes = {name: start_process(name, WINDOW + 90) for name in ("killed", "paused", "trains")}
    try:
        wanted = {"killed": "Running", "paused": "Paused", "trains": "Running"}
        wait_for(lambda: read_states(client, *wanted) == wanted, 240)
        assert read_states(client, *wanted) == wanted
        time.sleep(5)  # the first heartbeats travel
        os.killpg(processes["killed"].pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: read_states(client, "killed")["killed"] == "Crashed", WINDOW + 60)
        took = time.monotonic() - killed
        assert read_states(client, *wanted) == wanted | {"killed": "Crashed"}
        print(f"marked {took:.0f} s after the kill")
        assert processes["trains"].wait(timeout=200) == 0
        assert read_states(client, "paused", "trains") == {"paused": "Paused", "trains": "Completed"}
        runs = [run for run in client.read_flow_runs(limit=200) if run.name in wanted]
        assert [run.name for run in runs if was_crashed(client, run.id)] == ["killed"]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def was_crashed(client: SyncPrefectClient, run: UUID) -> bool:
    """Return whether the run has ever been Crashed."""
    return any(state.type is StateType.CRASHED for state in client.read_flow_run_states(run))


def test_a_crashed_run_is_running_again_when_heartbeats_return(client: SyncPrefectClient, tmp_path: Path) -> None:
    declared = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))
    for one in declared["automations"]:
        if one["name"] == "labelstill: heartbeats":
            one["trigger"]["within"] = 12
    quick = tmp_path / "automations.yaml"
    quick.write_text(yaml.safe_dump(declared), encoding="utf-8")
    apply_automations(client, file=quick)
    made = flow(name="labelstill-relabel")(lambda: None)
    deployment = client.create_deployment(client.create_flow(made), name="test", enforce_parameter_schema=False)

    def start(name: str) -> UUID:
        run = client.create_flow_run_from_deployment(deployment, name=name)
        for state in (Pending(), Running()):
            client.set_flow_run_state(run.id, state)
        return run.id

    def beat(run: UUID) -> None:
        related = [
            {
                "prefect.resource.id": "prefect.flow.x",
                "prefect.resource.role": "flow",
                "prefect.resource.name": "labelstill-relabel",
            }
        ]
        emit_event("prefect.flow-run.heartbeat", {"prefect.resource.id": f"prefect.flow-run.{run}"}, related=related)

    def state(run: UUID) -> StateType | None:
        return client.read_flow_run(run).state_type

    dead, suspended, living, mute, back = (start(name) for name in ("dead", "suspended", "living", "mute", "back"))
    for run in (dead, suspended, living, back):
        beat(run)
    time.sleep(1)
    client.set_flow_run_state(suspended, Suspended(timeout_seconds=600))
    for _ in range(12):
        time.sleep(2)
        beat(living)
    wait_for(lambda: (state(dead), state(back)) == (StateType.CRASHED, StateType.CRASHED), 40)
    found = [state(run) for run in (dead, suspended, living, mute, back)]
    assert found == [
        StateType.CRASHED,
        StateType.PAUSED,
        StateType.RUNNING,
        StateType.RUNNING,
        StateType.CRASHED,
    ]
    beat(back)
    wait_for(lambda: state(back) is StateType.RUNNING, 40)
    assert state(back) is StateType.RUNNING
    client.set_flow_run_state(back, Completed())
    assert [state(back), state(dead)] == [StateType.COMPLETED, StateType.CRASHED]
