"""`labelstill serve` on a machine that loses its power: all its processes die at once, and it is started again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError

from flows.service.pages import get_pages_program
from flows.service.serve import Worker, list_pools
from flows.service.server import get_server_program, read_prefect_environment
from tests.conftest import ROOT, free_port
from tests.flows.service.test_serve import DEPLOYMENTS, FLOW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PATIENCE = 300
_SERVE = "import sys; from pathlib import Path; from flows.service.serve import serve; serve(Path(sys.argv[1]))"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder whose server has a port of its own; its one deployment runs once at a time."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "throwaway.py").write_text(FLOW, encoding="utf-8")
    limit = "    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}\n"
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENTS + limit, encoding="utf-8")
    monkeypatch.setenv("LABELSTILL_PORT", str(free_port()))
    for name, value in read_prefect_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@contextmanager
def start_serving(project: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (project / "serve.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-c", _SERVE, str(project)], cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        for one in find_processes(project, process):
            one.kill()
        process.wait()


def find_processes(project: Path, serve: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes of the service: `serve` itself, the server, the workers and their runs."""
    workers = [Worker(project, pool, "").program for pool in list_pools(project)]
    heads = [
        head
        for program in (get_server_program(project), get_pages_program(project), *workers)
        for head in program.find()
    ]
    heads += [psutil.Process(serve.pid)] if serve.poll() is None else []
    return [one for head in heads for one in (head, *head.children(recursive=True))]


def wait_until(moment: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if moment():
                return
        except (httpx.HTTPError, PrefectHTTPStatusError):
            pass  # the server starts, or has not got its deployments yet
        assert time.monotonic() < deadline
        time.sleep(0.5)


def start_run(seconds: float) -> FlowRun:
    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        deployment = client.read_deployment_by_name("labelstill-demo/demo")
        return client.create_flow_run_from_deployment(deployment.id, parameters={"config": {"seconds": seconds}})


def read_state(run_id: UUID) -> str | None:
    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        return client.read_flow_run(run_id).state_name


def count_heartbeats(run_id: UUID) -> int:
    """How many the server has got from the run."""
    only = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run_id}"]}}
    found = httpx.post(f"{os.environ['PREFECT_API_URL']}/events/filter", json={"filter": only}, timeout=30)
    return found.raise_for_status().json()["total"]


def is_ready(log: Path) -> bool:
    return "Press Ctrl-C to stop" in log.read_text(encoding="utf-8", errors="replace")


def test_after_a_power_cut_the_waiting_run_starts_and_the_dead_one_is_crashed(project: Path) -> None:
    log = project / "serve.log"
    with start_serving(project) as serve:
        wait_until(lambda: is_ready(log))
        dead = start_run(3600)
        wait_until(lambda: read_state(dead.id) == "Running" and count_heartbeats(dead.id) > 0)
        waiting = start_run(0)
        assert read_state(waiting.id) in {"Scheduled", "Late"}  # the worker executes one run at a time
        for process in find_processes(project, serve):
            process.kill()
        serve.wait()
    log.unlink()
    with start_serving(project) as serve:
        wait_until(lambda: is_ready(log))
        wait_until(lambda: read_state(dead.id) == "Crashed")
        wait_until(lambda: read_state(waiting.id) == "Completed")
        with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
            assert not client.read_deployment_by_name("labelstill-demo/demo").paused
        started = find_processes(project, serve)
        assert len(started) >= 4  # serve, server, page server and worker
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(timeout=90) == 0
        assert psutil.wait_procs(started, timeout=10)[1] == []
