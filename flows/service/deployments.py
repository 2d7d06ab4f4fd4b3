"""The deployments on the project's server, and the worker processes that execute their runs."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError

from flows.service.follow import crash_stale_runs
from flows.service.pools import POOLS, new_pool
from flows.service.processes import Child, start_detached, stop_child
from flows.service.server import find_or_start_server, prefect_environment, project_root
from tasks.errors import LabelstillError

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
    def owns_server(self) -> bool:
        """Whether the server is the project's own, which this may start; else PREFECT_API_URL names another's."""
        return self.api_url == prefect_environment(self.root)["PREFECT_API_URL"]

    @property
    def environment(self) -> dict[str, str]:
        """The Prefect settings of every process started for this service."""
        return {**prefect_environment(self.root), "PREFECT_API_URL": self.api_url}

    def worker(self, pool: str) -> Child:
        """The record of the worker process of a pool that was last started."""
        return Child(self.root / ".prefect" / f"labelstill-worker-{pool}.json", ("prefect", "worker", "start", pool))

    def worker_log(self, pool: str) -> Path:
        """What the pool's worker and its runs print."""
        return self.root / ".prefect" / f"worker-{pool}.log"

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
    """Bring the work pools and prefect.yaml's deployments onto the server; False if they were there unchanged.

    "Unchanged" is the digest of prefect.yaml and of the modules that the parameters' form is made from. Raises
    `ServiceError` with Prefect's own message when a deployment is refused.
    """
    note = service.root / ".prefect" / "labelstill-deployed.json"
    digest = _deployment_digest(service.root)
    with service.client() as client:
        if _noted(note) == {"digest": digest, "deployments": _deployed_ids(client, service.root)}:
            return False
        for pool in POOLS:
            _make_pool(client, pool)
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


def _make_pool(client: SyncPrefectClient, pool: str) -> None:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        with suppress(ObjectAlreadyExists):  # another process was quicker
            client.create_work_pool(new_pool(pool))


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


def worker_name(pool: str) -> str:
    """The name of this machine's worker for a pool; the server keeps it with each run that the worker executes."""
    return f"{socket.gethostname()}-{pool}"


def worker_running(service: Service, pool: str) -> bool:
    """Whether a worker for `pool` that this project started is alive."""
    return service.worker(pool).process() is not None


def start_worker(service: Service, pool: str) -> bool:
    """Start a worker for `pool` that outlives this process; False if there is one. It executes one run at a time."""
    if worker_running(service, pool):
        return False
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    command += ["--name", worker_name(pool), "--limit", "1"]
    child, log = service.worker(pool), service.worker_log(pool)
    start_detached(child, command, cwd=service.root, environment=service.environment, log=log)
    return True


def stop_workers(service: Service, pools: Iterable[str] = tuple(POOLS)) -> bool:
    """End this project's workers and the runs that they execute, which are marked Crashed; False if there is none."""
    ended = [pool for pool in pools if stop_child(service.worker(pool), _STOP_SECONDS)]
    # a server that is gone as well learns of it at the next start
    with suppress(httpx.TransportError, PrefectHTTPStatusError, ObjectNotFound), service.client() as client:
        for pool in ended:
            crash_stale_runs(client, pool, worker_name(pool), worker_lives=False)
    return bool(ended)


def runs_not_done(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    """The runs of a deployment that wait or go on, oldest first."""
    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_NOT_DONE)),
    )
    return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC)
