"""`make serve` and `make demo`: the service kept up, and one run of it followed in the terminal.

Importing this imports Prefect: call `flows.server.apply_environment` first.
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound

from flows.follow import crash_rest, crash_stale_runs, follow_run
from flows.processes import tail
from flows.server import find_or_start_server, project_root, server_child, stop_server
from flows.service import (
    POOL,
    Service,
    ServiceError,
    open_service,
    register_deployments,
    runs_not_done,
    start_worker,
    stop_worker,
    worker_running,
)

DEMO = "demo/demo"
_TEND_SECONDS = 8.0
_WORKER_STARTS = 4


class Tender:
    """Keeps the server and the worker alive while something else waits for them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._looked = 0.0
        self._starts = 0

    def __call__(self, run: FlowRun | None) -> None:
        """Look after both, every few seconds, or at once when the server did not answer (`run` is None).

        Raises `ServiceError` when the worker dies again and again, `ServerError` when the server cannot be started.
        """
        if run is not None and time.monotonic() - self._looked < _TEND_SECONDS:
            return
        find_or_start_server(root=self._service.root)
        self.tend_worker()
        self._looked = time.monotonic()

    def tend_worker(self) -> None:
        """Mark the runs whose process is gone, and start a worker if there is none."""
        with self._service.client() as client:
            for run in crash_stale_runs(client, POOL, worker_lives=worker_running(self._service)):
                print(f"The process of run {run.name} is gone: marked Crashed.", flush=True)
        if worker_running(self._service):
            return
        if self._starts == _WORKER_STARTS:
            log = self._service.root / ".prefect" / "worker.log"
            raise ServiceError(f"The Prefect worker ended {self._starts} times. The last lines of {log}:\n{tail(log)}")
        self._starts += start_worker(self._service)


def run_deployment_and_follow(
    service: Service,
    name: str,
    parameters: dict[str, Any],
    on_state: Callable[[State], None],
    tender: Tender | None = None,
) -> FlowRun:
    """Run the deployment `flow/name` and follow it to its end, its log lines printed; gives back the finished run.

    A run of the same deployment with the same parameters that waits or goes on already is followed instead of a
    second one. Ctrl-C ends the following (KeyboardInterrupt), not the run. Raises `ServiceError` if the deployment is
    not registered.
    """
    with service.client() as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise ServiceError(f"The deployment {name} is not registered; register it with: make serve") from None
        asked = {**deployment.parameters, **parameters}
        going = [run for run in runs_not_done(client, deployment.id) if run.parameters == asked]
        run = going[0] if going else client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        print(f"{'Found' if going else 'Created'} run {run.name}: {service.run_address(run.id)}", flush=True)
        try:
            finished = follow_run(client, run.id, on_state=on_state, tend=tender)
        except KeyboardInterrupt:
            print(f"\nThe run goes on: {service.run_address(run.id)}\n  end it with: prefect flow-run cancel {run.id}")
            raise
        crash_rest(client, run.id)
        return finished


def demo_in_service(config: dict[str, Any], root: Path | None = None) -> int:
    """Run the demo through the project's server, followed in the terminal; gives back the exit code.

    Starts what is missing: server, deployments, worker. The server stays up; a worker started here is ended with the
    run, unless another run waits for it or Ctrl-C left this one going.
    """
    service = open_service(root)
    if register_deployments(service):
        print(f"Registered the deployments at {service.ui_url}/deployments", flush=True)
    found_worker = worker_running(service)
    tender = Tender(service)
    tender.tend_worker()
    try:
        run = run_deployment_and_follow(service, DEMO, {"config": config}, _print_state, tender)
    except KeyboardInterrupt:
        return 130
    if not found_worker and not _more_to_do(service):
        stop_worker(service)
    print(f"The run in the web UI: {service.run_address(run.id)}", flush=True)
    return 0 if run.state is not None and run.state.is_completed() else 1


def serve(root: Path | None = None) -> None:
    """Keep server, deployments and worker up until Ctrl-C or SIGTERM; what was started here is ended then."""
    signal.signal(signal.SIGTERM, _interrupt)
    found_server = server_child(root or project_root()).process() is not None
    service = open_service(root)
    try:
        register_deployments(service)
        tender = Tender(service)
        tender.tend_worker()
        print(f"Web UI: {service.ui_url}   Start a run there, or with: prefect deployment run distill", flush=True)
        print("Ctrl-C ends the service.", flush=True)
        while True:
            time.sleep(_TEND_SECONDS)
            tender(None)
    except KeyboardInterrupt:
        print("\nEnding the worker …", flush=True)
    finally:
        stop_worker(service)
        if not found_server:
            stop_server(service.root)


def _print_state(state: State) -> None:
    print(f"-- {state.name}{f': {state.message}' if state.message else ''}", flush=True)


def _more_to_do(service: Service) -> bool:
    with service.client() as client:
        ours = [d for d in client.read_deployments() if d.work_pool_name == POOL]
        return any(runs_not_done(client, deployment.id) for deployment in ours)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
