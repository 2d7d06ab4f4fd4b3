"""Automations on a real server: each event of a run sends one message to the configured block."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow_sync
from prefect.settings import get_current_settings
from prefect.states import Crashed, Pending, Running
from typer.testing import CliRunner

from flows.service.alerts import (
    AUTOMATIONS,
    AlertError,
    Applied,
    alert_empty,
    alert_held_back,
    apply_automations,
    find_block,
)
from flows.service.serve import list_deployments
from tasks.dataset.drift import RelabelOutcome
from tasks.errors import BudgetSpent
from tests.conftest import ROOT, PrefectServer

DECLARED = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))
ALERTS = {one["name"] for one in DECLARED["automations"] if one["actions"][0]["type"] == "send-notification"}
MARKS = {"labelstill: heartbeats", "labelstill: heartbeats are back"}


@dataclass
class Receiver:
    """What a webhook was sent."""

    url: str
    bodies: list[str] = field(default_factory=list[str])

    def subjects(self) -> list[str]:
        return sorted(json.loads(body)["subject"] for body in self.bodies)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(prefect_server.api_url) as client:
        yield client
        for automation in client.read_automations():
            client.delete_automation(automation.id)


def save_webhook_block(receiver: Receiver) -> str:
    block = CustomWebhookNotificationBlock(
        name="team", url=receiver.url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    block.save("team", overwrite=True)  # pyright: ignore
    return "custom-webhook/team"


def run_deployed(client: SyncPrefectClient, name: str, work: Callable[[], None]) -> FlowRun:
    """A run of a deployment of a flow, executed here."""
    made = flow(name=name)(work)
    name = name.removeprefix("labelstill-")
    deployment = client.create_deployment(client.create_flow(made), name="test", enforce_parameter_schema=False)
    run = client.create_flow_run_from_deployment(deployment, name=f"{name}-run")
    run_flow_sync(made, flow_run=run, return_type="state")
    return run


def wait_until(until: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.2)


def fail() -> None:
    @flow(name="labelstill-emit")
    def subflow() -> None:
        raise ValueError("the disk is full")

    subflow()


def test_each_alert_is_sent_once(client: SyncPrefectClient, receiver: Receiver, tmp_path: Path) -> None:
    apply_automations(client, find_block(client, save_webhook_block(receiver)))

    def well() -> None:
        alert_held_back(tmp_path, "31 % of the labels changed")
        alert_empty(tmp_path, "pseudo_labels")

    run_deployed(client, "labelstill-distill", fail)
    run_deployed(client, "labelstill-relabel", well)
    run_deployed(client, "evaluate", fail)  # another project's
    crashed = client.create_flow_run_from_deployment(
        client.read_deployment_by_name("labelstill-relabel/test").id, name="gone"
    )
    for state in (Pending(), Running(), Crashed(message="Its process is gone.")):
        client.set_flow_run_state(crashed.id, state)
    flow(name="labelstill-distill")(lambda: 1 / 0)(return_state=True)  # in a terminal
    wait_until(lambda: len(receiver.bodies) >= 4)
    time.sleep(2)
    assert receiver.subjects() == [
        f"labelstill: a version of {tmp_path} is held back",
        "labelstill: distill-run failed",
        "labelstill: gone crashed",
        "labelstill: pseudo_labels kept nothing",
    ]
    bodies = {json.loads(body)["subject"]: json.loads(body)["body"] for body in receiver.bodies}
    assert "the disk is full" in bodies["labelstill: distill-run failed"]
    assert f"/flow-run/{crashed.id}" in bodies["labelstill: gone crashed"]
    held = bodies[f"labelstill: a version of {tmp_path} is held back"]
    assert "31 % of the labels changed" in held and "/flow-run/" in held


def test_a_plain_webhook_receives_alerts(client: SyncPrefectClient, receiver: Receiver, tmp_path: Path) -> None:
    Webhook(url=receiver.url).save("plain", overwrite=True)  # pyright: ignore
    apply_automations(client, find_block(client, "webhook/plain"))

    @flow(name="labelstill-relabel")
    def held() -> None:
        alert_held_back(tmp_path, "too much changed")

    held()
    wait_until(lambda: bool(receiver.bodies))
    (body,) = receiver.bodies
    assert "is held back" in body and "too much changed" in body


def test_applying_twice_adds_nothing_and_keeps_peoples_choices(client: SyncPrefectClient, receiver: Receiver) -> None:
    names = ALERTS | MARKS
    assert apply_automations(client) == dict.fromkeys(names, Applied.CREATED)
    assert apply_automations(client) == dict.fromkeys(names, Applied.UNCHANGED)
    block = find_block(client, save_webhook_block(receiver))
    changed = apply_automations(client, block)
    assert {name for name, applied in changed.items() if applied is Applied.UPDATED} == ALERTS
    assert {name for name, applied in changed.items() if applied is Applied.UNCHANGED} == MARKS
    (late,) = client.read_automations_by_name("labelstill: late")
    client.pause_automation(late.id)
    assert set(apply_automations(client).values()) == {Applied.UNCHANGED}
    assert set(apply_automations(client, block).values()) == {Applied.UNCHANGED}
    found = {a.name: a for a in client.read_automations()}
    assert len(client.read_automations()) == len(found) == len(names)
    assert not found["labelstill: late"].enabled
    assert [action.type for action in found["labelstill: failed"].actions] == ["send-notification"]


def test_a_missing_block_or_one_that_cannot_send_is_named(client: SyncPrefectClient) -> None:
    Secret(value="geheim").save("team", overwrite=True)  # pyright: ignore
    with pytest.raises(AlertError, match=r"no block 'slack-webhook/nobody'.*Save one in the web UI"):
        find_block(client, "slack-webhook/nobody")
    with pytest.raises(AlertError, match="'secret/team' cannot send"):
        find_block(client, "secret/team")


def test_the_command_reports_each_automation(client: SyncPrefectClient, receiver: Receiver) -> None:
    from flows.commands.main import app

    output = CliRunner().invoke(app, ["alerts"]).output
    assert "labelstill: heartbeats: created" in output and "No receiver was set" in output
    output = CliRunner().invoke(app, ["alerts", "--block", save_webhook_block(receiver)]).output
    assert "labelstill: failed: updated" in output and "No receiver was set" not in output


def test_every_deployed_flow_is_watched() -> None:
    assert {name.partition("/")[0] for name in list_deployments(ROOT)} <= set(DECLARED["flows"])


def test_every_final_state_ends_the_wait_for_heartbeats() -> None:
    (marker,) = (one for one in DECLARED["automations"] if one["name"] == "labelstill: heartbeats")
    names = {"".join(word.capitalize() for word in outcome.split()) for outcome in RelabelOutcome}
    names |= {BudgetSpent.__name__, "Submitted"}
    assert {f"prefect.flow-run.{name}" for name in names} <= set(marker["trigger"]["expect"])


def test_five_heartbeats_must_be_missed() -> None:
    (marker,) = (one for one in DECLARED["automations"] if one["name"] == "labelstill: heartbeats")
    assert get_current_settings().flows.heartbeat_frequency == 30
    assert marker["trigger"]["within"] == 5 * 30
