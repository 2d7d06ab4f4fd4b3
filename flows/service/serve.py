"""`labelstill serve` and `labelstill stop`: keep the server, the page server and the workers running, and stop them.

This module imports Prefect: call `flows.service.server.apply_environment` first.
"""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from uuid import UUID

import httpx
import psutil
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Crashed
from prefect.workers.process import ProcessWorker

from flows.api import open_client
from flows.service.alerts import apply_automations
from flows.service.pages import find_or_start_pages, get_pages_program, read_page_settings
from flows.service.processes import Program, ServerError
from flows.service.server import (
    find_or_start_server,
    get_project_root,
    get_server_program,
    read_prefect_environment,
)
from tasks.models.engines.processes import end_processes

TAG = "labelstill"
"""The tag of each deployment in prefect.yaml."""
_CHECK_SECONDS = 8.0
_STOP_SECONDS = 20.0
_WORKER_STARTS = 4
_WORKER_STARTS_WITHIN = 600.0


def serve(root: Path | None = None) -> None:
    """Keep the server, the page server and the workers running until Ctrl-C or SIGTERM, then stop them.

    A Prefect server that was already running is not stopped.
    """
    root = root or get_project_root()
    signal.signal(signal.SIGTERM, _interrupt)
    found_server = bool(get_server_program(root).find())
    try:
        api_url = find_or_start_server(root=root)
        with open_client(api_url) as client:
            register_deployments(client, root)
            apply_automations(client)
        keepers: list[Callable[[], object]] = [Worker(root, pool, api_url).keep_up for pool in list_pools(root)]
        keepers.append(partial(find_or_start_pages, root))
        if api_url == read_prefect_environment(root)["PREFECT_API_URL"]:  # else it is not our server
            keepers.append(partial(find_or_start_server, root=root))
        failed: set[int] = set()
        restart_dead(keepers, failed)
        print(f"Cards, review pages and logs: {read_page_settings(root).url}", flush=True)
        print(f"Web UI: {api_url.removesuffix('/api')}   Start a run there, or with: prefect deployment run distill")
        print("Press Ctrl-C to stop the service.", flush=True)
        while True:
            time.sleep(_CHECK_SECONDS)
            restart_dead(keepers, failed)
    except KeyboardInterrupt:
        print("\nStopping the workers …", flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not leave half of it running
        stop(root, server=not found_server)


def stop(root: Path | None = None, *, server: bool = True) -> bool:
    """Stop runs, workers, page server and, with `server`, the Prefect server. Return False if none was running.

    Each run has 20 seconds to report to the server that it is Crashed; on a busy machine that may be too short, and
    then it is reported here.
    """
    root = root or get_project_root()
    # runs first: a worker that is asked to stop kills its runs at once
    engines = Program(root, ("-m", "prefect.engine"), root / ".prefect").find()
    runs = [run for engine in engines if (run := _identify_run(engine))]
    ended = end_processes(engines, _STOP_SECONDS)
    for api_url, run in runs:
        _report_crash(api_url, run)
    workers = [process for pool in list_pools(root) for process in Worker(root, pool, "").program.find()]
    ended |= end_processes(workers, _STOP_SECONDS)
    ended |= get_pages_program(root).stop()
    return (server and get_server_program(root).stop()) or ended


def _identify_run(engine: psutil.Process) -> tuple[str, UUID] | None:
    """Return the API's address and the id of the flow run that a process executes; None if it has just ended."""
    try:
        environment = engine.environ()
        return environment["PREFECT_API_URL"], UUID(environment["PREFECT__FLOW_RUN_ID"])
    except (psutil.Error, OSError, KeyError, ValueError):
        return None


def _report_crash(api_url: str, run: UUID) -> None:
    """Set a run that has no final state to Crashed. Nothing happens if the server is away."""
    with suppress(httpx.HTTPError, ObjectNotFound), open_client(api_url) as client:
        state = client.read_flow_run(run).state
        if state is None or not state.is_final():
            client.set_flow_run_state(run, Crashed(message="Stopped by `labelstill stop`."), force=True)


def restart_dead(keepers: list[Callable[[], object]], failed: set[int]) -> None:
    """Restart the programs that have died. If one does not start, print that once and try again at the next call."""
    for number, keep_up in enumerate(keepers):
        try:
            keep_up()
            failed.discard(number)
        except ServerError as error:
            if number not in failed:
                print(f"{error}\nStarting it will be retried. Running runs continue.", flush=True)
            failed.add(number)


@dataclass
class Worker:
    """This machine's worker for a work pool. It executes one run at a time, each in a new process."""

    root: Path
    pool: str
    api_url: str
    _starts: deque[float] = field(default_factory=lambda: deque[float](maxlen=_WORKER_STARTS))

    @property
    def program(self) -> Program:
        """The worker's program. Its log includes the output of its runs."""
        arguments = ("-m", "prefect", "worker", "start", "--pool", self.pool, "--type", "process")
        arguments += ("--name", f"{socket.gethostname()}-{self.pool}", "--limit", "1")
        return Program(self.root, arguments, self.root / ".prefect" / f"worker-{self.pool}.log")

    def keep_up(self) -> None:
        """Start the worker unless it is running. Raises ServerError if it keeps dying."""
        if self.program.find():
            return
        starts = self._starts
        if len(starts) == _WORKER_STARTS and time.monotonic() - starts[0] < _WORKER_STARTS_WITHIN:
            raise ServerError(
                f"The Prefect worker for pool {self.pool} stopped {len(starts)} times within "
                f"{_WORKER_STARTS_WITHIN:.0f} s. Fix what its log says. The last lines of {self.program.log}:\n"
                f"{self.program.log_tail()}"
            )
        self.program.start({**read_prefect_environment(self.root), "PREFECT_API_URL": self.api_url})
        starts.append(time.monotonic())


def list_deployments(root: Path) -> list[str]:
    """Return the deployments in prefect.yaml, each as `flow/deployment`. A flow is named after its function."""
    flows = (one["entrypoint"].rpartition(":")[2].replace("_", "-") for one in _read_deployments(root))
    return [f"labelstill-{flow}/{one['name']}" for flow, one in zip(flows, _read_deployments(root), strict=True)]


def list_pools(root: Path) -> list[str]:
    """Return the work pools that the deployments in prefect.yaml use."""
    return sorted({one["work_pool"]["name"] for one in _read_deployments(root)})


def _read_deployments(root: Path) -> list[dict[str, Any]]:
    return yaml.safe_load((root / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


def register_deployments(client: SyncPrefectClient, root: Path) -> bool:
    """Register the pools and deployments in prefect.yaml on the server if they have changed; return whether they had.

    They count as unchanged if prefect.yaml and all code that affects the parameter form in the web UI are the same.
    Registering them again would switch off schedules that were switched on in the web UI. Raises ServerError, with
    Prefect's message, when a deployment is refused, and if one with the same name is not ours.
    """
    note = root / ".prefect" / "deployed"
    digest = hashlib.sha256(str(client.api_url).encode())
    code = [path for folder in ("flows", "tasks") for path in sorted((root / folder).rglob("*.py"))]
    for path in (root / "prefect.yaml", *code):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    registered = are_registered(client, root)
    unchanged = note.exists() and note.read_text(encoding="utf-8") == digest.hexdigest()
    if unchanged and registered:
        return False
    for pool in list_pools(root):
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))
    _prefect_deploy(root, str(client.api_url).rstrip("/"))
    note.parent.mkdir(exist_ok=True)
    note.write_text(digest.hexdigest(), encoding="utf-8")
    return True


def are_registered(client: SyncPrefectClient, root: Path) -> bool:
    """Return whether the server has all of our deployments. Raises ServerError if one of that name is not ours."""
    found = True
    for name in list_deployments(root):
        try:
            there = client.read_deployment_by_name(name)
        except ObjectNotFound:
            found = False
            continue
        if TAG not in there.tags:
            raise ServerError(
                f"The server has another deployment {name!r}, without the tag {TAG!r}, which would be replaced. "
                "Rename that one, or use another server."
            )
    return found


def _prefect_deploy(root: Path, api_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env={**os.environ, **read_prefect_environment(root), "PREFECT_API_URL": api_url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ServerError(f"`prefect deploy --all` failed. Fix prefect.yaml or the flow that is named here:\n{tail}")


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
