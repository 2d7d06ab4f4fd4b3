"""`prefect deploy --all` and a worker: relabel on a schedule of seconds, three times."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort

from tasks.dataset.diff import ChangeCounts, ChangeKind, compare_snapshots
from tasks.dataset.drift import RelabelOutcome, read_state
from tasks.dataset.versions import open_snapshot, read_versions
from tests.conftest import ROOT, PrefectServer
from tests.flows.small_run import dump_config
from tests.flows.test_relabel import Watched, pool

__all__ = ["pool"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_EVERY = timedelta(seconds=15)


def run_prefect(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *words]


def test_the_first_run_asks_all_the_next_only_new_items(
    pool: Watched, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    for name in ("labelstill-gpu", "labelstill-cpu"):  # fails where another test has made it
        subprocess.run(run_prefect("work-pool", "create", name, "--type", "process"), cwd=ROOT, capture_output=True)
    done = subprocess.run(run_prefect("--no-prompt", "deploy", "--all"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "worker.log").open("wb") as log, get_client(sync_client=True) as client:
        worker = subprocess.Popen(
            run_prefect("worker", "start", "--pool", "labelstill-gpu", "--limit", "1"),
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"PREFECT_WORKER_QUERY_SECONDS": "2"},
        )  # fmt: skip
        try:
            schedule(client, pool)
            first = wait_for_end(client, 1)
            assert pool.asked() == 30
            second = wait_for_end(client, 2)
            assert pool.asked() == 30
            pool.add(seed=6, count=10)
            found = wait_for_third(client, pool)
        except AssertionError:
            print((tmp_path / "worker.log").read_text("utf-8", "replace")[-3000:])
            raise
        finally:
            client.update_deployment(deployment(client), DeploymentUpdate(paused=True))
            worker.terminate()
            worker.wait(timeout=300)  # it lets a run that is under way end: 42 s at load 4, when 60 were too few
    assert [run.state_name for run in (first, second, found)] == ["Published", "Unchanged", "Published"]
    assert pool.asked() == 40
    log_of_versions = read_versions(pool.config.output)
    counts = ChangeCounts()
    for change in compare_snapshots(*(open_snapshot(v.version, pool.config.output) for v in log_of_versions)):
        counts.add(change)
    assert set(counts.kinds) <= {ChangeKind.ADDED, ChangeKind.MOVED}
    assert counts.kinds[ChangeKind.ADDED] > 0
    state = read_state(pool.config.output)
    assert state is not None and state.outcome is RelabelOutcome.PUBLISHED
    for run in (first, second, found):
        print(f"{run.name}: {run.state_name}, {run.total_run_time.total_seconds():.1f} s")
    print(f"asked 30, 0, 10; the diff: {dict(counts.kinds)}")


def deployment(client: SyncPrefectClient) -> UUID:
    return client.read_deployment_by_name("labelstill-relabel/relabel").id


def schedule(client: SyncPrefectClient, pool: Watched) -> None:
    """Let the deployment re-label the test's pool every few seconds."""
    config = pool.config.model_copy(update={"drift": pool.config.drift.model_copy(update={"balance": 1.0})})
    parameters = {"config": dump_config(config)}
    client.update_deployment(deployment(client), DeploymentUpdate(parameters=parameters))
    client.create_deployment_schedules(deployment(client), [(IntervalSchedule(interval=_EVERY), True)])


def wait_for_end(client: SyncPrefectClient, number: int) -> FlowRun:
    """The `number`th run that has ended, as soon as it has."""
    mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment(client)]))
    deadline, runs = time.monotonic() + 300, list[FlowRun]()
    while time.monotonic() < deadline:
        runs = client.read_flow_runs(flow_run_filter=mine, sort=FlowRunSort.START_TIME_ASC)
        over = [run for run in runs if run.state is not None and run.state.is_final()]
        if len(over) >= number:
            return over[number - 1]
        time.sleep(1)
    found = [(run.name, run.state_name, run.state.message if run.state else "") for run in runs]
    raise AssertionError(f"run number {number} has not ended; there are {found}")


def wait_for_third(client: SyncPrefectClient, pool: Watched) -> FlowRun:
    """The first run that began after items were added and did something (one may have looked a moment before)."""
    for number in range(3, 7):
        run = wait_for_end(client, number)
        if run.state_name != "Unchanged":
            return run
    raise AssertionError("what was added was not found")
