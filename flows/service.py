"""The deployments on the project's server, and the worker process that executes their runs."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from flows.follow import crash_stale_runs
from flows.processes import Child, start_detached, stop_child
from flows.server import find_or_start_server, prefect_environment, project_root
from tasks.errors import LabelstillError

POOL = "labelstill"
_STOP_SECONDS = 20.0
_NOT_DONE = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


class ServiceError(LabelstillError):
    """The deployments cannot be registered, or no worker executes them; the text says what to do."""


@dataclass(frozen=True)
class Service:
    """A server that answers, and the project folder whose deployments and worker belong to it."""

    root: Path
    api_url: str

    @property
    def ui_url(self) -> str:
        """The web UI's address."""
        return self.api_url.removesuffix("/api")

    @property
    def environment(self) -> dict[str, str]:
        """The Prefect settings of every process started for this service."""
        return {**prefect_environment(self.root), "PREFECT_API_URL": self.api_url}

    @property
    def worker(self) -> Child:
        """The record of the worker process that was last started."""
        return Child(self.root / ".prefect" / "labelstill-worker.json", words=("prefect", "worker", "start", POOL))

    def run_address(self, run_id: UUID) -> str:
        """Where the web UI shows a flow run."""
        return f"{self.ui_url}/runs/flow-run/{run_id}"

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        """A client of this server, whatever Prefect's settings in this process are."""
        with SyncPrefectClient(self.api_url) as client:
            yield client


def open_service(root: Path | None = None) -> Service:
    """The service of the project in `root`, its server started if need be. Raises `ServerError`."""
    root = root or project_root()
    return Service(root, find_or_start_server(root=root))


def deployment_names(root: Path) -> list[str]:
    """The `flow/deployment` names in prefect.yaml; a flow is named like its function."""
    declared = yaml.safe_load((root / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return [f"{one['entrypoint'].rpartition(':')[2].replace('_', '-')}/{one['name']}" for one in declared]


def register_deployments(service: Service) -> bool:
    """Bring the work pool and prefect.yaml's deployments onto the server; False if they were there unchanged.

    "Unchanged" is the digest of prefect.yaml and of the modules that the parameters' form is made from. Raises
    `ServiceError` with Prefect's own message when a deployment is refused.
    """
    note = service.root / ".prefect" / "labelstill-deployed.json"
    digest = _deployment_digest(service.root)
    with service.client() as client:
        if _noted(note) == {"digest": digest, "deployments": _deployed_ids(client, service.root)}:
            return False
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            # Slow to import, and needed once in the life of a server.
            from prefect.workers.process import ProcessWorker

            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
        _prefect_deploy(service)
        deployed = _deployed_ids(client, service.root)
    missing = [name for name, deployment_id in deployed.items() if deployment_id is None]
    if missing:
        raise ServiceError(
            f"prefect.yaml declares {', '.join(missing)}, which `prefect deploy --all` did not register."
        )
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps({"digest": digest, "deployments": deployed}), encoding="utf-8")
    return True


def _deployment_digest(root: Path) -> str:
    digest = hashlib.sha256()
    # All code that the configuration models may come from; a needless registration only costs some seconds.
    for path in [
        root / "prefect.yaml",
        *sorted((root / "flows").rglob("*.py")),
        *sorted((root / "tasks").rglob("*.py")),
    ]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _noted(note: Path) -> Any:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _deployed_ids(client: SyncPrefectClient, root: Path) -> dict[str, str | None]:
    ids: dict[str, str | None] = {}
    for name in deployment_names(root):
        try:
            ids[name] = str(client.read_deployment_by_name(name).id)
        except ObjectNotFound:
            ids[name] = None
    return ids


def _prefect_deploy(service: Service) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        command,
        cwd=service.root,
        env={**os.environ, **service.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ServiceError(f"`prefect deploy --all` failed, mend prefect.yaml or the flow it names:\n{tail}")


def worker_running(service: Service) -> bool:
    """Whether a worker that this project started is alive."""
    return service.worker.process() is not None


def start_worker(service: Service) -> bool:
    """Start a worker that outlives this process; False if there is one. It executes one run at a time."""
    if worker_running(service):
        return False
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"]
    log = service.root / ".prefect" / "worker.log"
    start_detached(service.worker, command, cwd=service.root, environment=service.environment, log=log)
    return True


def stop_worker(service: Service) -> bool:
    """End the worker and the runs that it executes, which are marked Crashed; False if there is none."""
    if not stop_child(service.worker, _STOP_SECONDS):
        return False
    with service.client() as client:
        crash_stale_runs(client, POOL, worker_lives=False)
    return True


def runs_not_done(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    """The runs of a deployment that wait or go on, oldest first."""
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_NOT_DONE)),
    )
    return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC)
