"""A small stage with a real server: it shows progress and costs, and sends an alert when it kept nothing."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow

from flows.asking import open_asker
from flows.config import CommonConfig
from flows.service.alerts import EMPTY
from flows.stage import Stage
from tasks.models.engines.spec import EngineSpec, Prices
from tasks.records import Dropped, Sampling
from tests.conftest import PrefectServer
from tests.tasks.making import prompter, sample


def read_events(server: PrefectServer, name: str, output: Path) -> list[dict[str, Any]]:
    body = {"filter": {"event": {"name": [name]}}, "limit": 50}
    found = httpx.post(f"{server.api_url}/events/filter", json=body, timeout=30).raise_for_status().json()["events"]
    return [event for event in found if event["payload"]["output"] == str(output)]


def read_artifacts(server: PrefectServer, run: object) -> dict[str, str]:
    body = {"artifacts": {"flow_run_id": {"any_": [str(run)]}}}
    found = httpx.post(f"{server.api_url}/artifacts/filter", json=body).raise_for_status().json()
    return {one["key"]: one["description"] or "" for one in found}


def test_asking_shows_what_it_cost(prefect_server: PrefectServer, tmp_path: Path) -> None:
    config = CommonConfig(
        pack="demo", output=tmp_path / "run", ledger=tmp_path / "ledger.sqlite", images=tmp_path / "images"
    )
    spec = EngineSpec(engine="scripted", model="scripted:hash", prices=Prices(prompt=1e6, output=0))
    requests = [prompter().classify(sample(f"item-{n}", f"第{n}件"), Sampling()) for n in range(5)]

    @flow
    def work() -> None:
        with open_asker(config, "pool") as asker:
            asker.ask_for_labels(requests, spec, "teacher labels", source="teacher", model="m")
            before = asker.costs_so_far()
            asker.ask_for_labels(requests, spec, "teacher labels again", source="teacher", model="m")
            after = asker.costs()
            assert before.cost and before.cost == pytest.approx(after.cost)
            assert (after.asked, after.reused) == (5, 5)

    state = work(return_state=True)
    assert state.is_completed()
    words = read_artifacts(prefect_server, state.state_details.flow_run_id)["pool-progress"]
    assert "5/5" in words and "cost " in words


def test_a_stage_that_keeps_nothing_sends_one_alert(prefect_server: PrefectServer, tmp_path: Path) -> None:
    @flow
    def work() -> None:
        config = CommonConfig(pack="demo", output=tmp_path / "run")
        gone = [Dropped(sample_id="a", stage="pseudo_labels", reason="not_trusted", detail="")]
        Stage("pseudo_labels", config).finish([], gone, ["a"], {})
        Stage("rationales", config).finish([sample("a")], [], ["a"], {})

    work()
    deadline = time.monotonic() + 30
    while not read_events(prefect_server, EMPTY, tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.2)
    (event,) = read_events(prefect_server, EMPTY, tmp_path / "run")
    assert event["payload"]["stage"] == "pseudo_labels"
    assert "/flow-run/" in event["payload"]["run"]
