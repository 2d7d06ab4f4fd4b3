"""`make serve` and `make demo`: the service kept up, and one run of it followed in the terminal.

Importing this imports Prefect: call `flows.service.server.apply_environment` first.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from flows.service.alerts import register_automations
from flows.service.deployments import (
    Service,
    ServiceError,
    open_service,
    register_deployments,
    runs_not_done,
    start_worker,
    stop_workers,
    worker_name,
    worker_running,
)
from flows.service.follow import crash_orphans, crash_rest, crash_stale_runs, follow_run
from flows.service.pages import find_or_start_pages, stop_pages
from flows.service.pools import CPU, POOLS
from flows.service.processes import tail
from flows.service.server import (
    ServerError,
    find_or_start_server,
    prefect_environment,
    project_root,
    server_child,
    stop_server,
)

DEMO = "demo/demo"
_TEND_SECONDS = 8.0
_WORKER_STARTS = 4
_WORKER_STARTS_WITHIN = 600.0


class Tender:
    """Keeps the server and the workers of `pools` alive while something else waits for them."""

    def __init__(self, service: Service, pools: Iterable[str] = tuple(POOLS)) -> None:
        self._service = service
        self._looked = 0.0
        self._told = False
        self._starts: dict[str, deque[float]] = {pool: deque(maxlen=_WORKER_STARTS) for pool in pools}

    def __call__(self, run: FlowRun | None) -> None:
        """Look after both, every few seconds, or at once when the server did not answer (`run` is None).

        A server that cannot be started now is said once, and tried again the next time: the workers' runs go on
        without it. Raises `ServiceError` when a worker dies again and again.
        """
        if run is not None and time.monotonic() - self._looked < _TEND_SECONDS:
            return
        if self._server_is_up():
            self.tend_workers()
        self._looked = time.monotonic()

    def _server_is_up(self) -> bool:
        if not self._service.owns_server:
            return True
        try:
            find_or_start_server(root=self._service.root)
        except ServerError as error:
            if not self._told:
                print(f"{error}\nThis is tried again; runs that are at work go on.", flush=True)
            self._told = True
            return False
        self._told = False
        return True

    def tend_workers(self) -> None:
        """Mark the runs whose process is gone, and start the workers that are missing.

        A server that answers too late, or whose database is locked, is asked again the next time.
        """
        for pool, starts in self._starts.items():
            lives = worker_running(self._service, pool)
            try:
                with self._service.client() as client:
                    for run in crash_stale_runs(client, pool, worker_name(pool), worker_lives=lives):
                        print(f"The process of run {run.name} is gone: marked Crashed.", flush=True)
                    crash_orphans(client)
            except ObjectNotFound:
                pass  # a run was deleted in the web UI between its listing and its mark: the next list is without it
            except (httpx.TransportError, PrefectHTTPStatusError) as error:
                print(f"The server did not answer ({type(error).__name__}), which is tried again.", flush=True)
            if not lives:
                self._start_worker(pool, starts)

    def _start_worker(self, pool: str, starts: deque[float]) -> None:
        if len(starts) == _WORKER_STARTS and time.monotonic() - starts[0] < _WORKER_STARTS_WITHIN:
            log = self._service.worker_log(pool)
            raise ServiceError(
                f"The Prefect worker for pool {pool} ended {len(starts)} times within {_WORKER_STARTS_WITHIN:.0f} s. "
                f"The last lines of {log}:\n{tail(log)}"
            )
        if start_worker(self._service, pool):
            starts.append(time.monotonic())


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
    _serve_pages(service)
    found_worker = worker_running(service, CPU)
    tender = Tender(service, [CPU])
    tender.tend_workers()
    try:
        run = run_deployment_and_follow(service, DEMO, {"config": config}, _print_state, tender)
    except KeyboardInterrupt:
        return 130
    if not found_worker and not _more_to_do(service):
        stop_workers(service, [CPU])
    print(f"The run in the web UI: {service.run_address(run.id)}", flush=True)
    return 0 if run.state is not None and run.state.is_completed() else 1


def serve(root: Path | None = None) -> None:
    """Keep server, deployments and workers up until Ctrl-C or SIGTERM; what was started here is ended then."""
    signal.signal(signal.SIGTERM, _interrupt)
    found_server = server_child(root or project_root()).process() is not None
    service = open_service(root)
    try:
        register_deployments(service)
        with service.client() as client:
            register_automations(client)  # of missing heartbeats; alerts keep the block they have
        _serve_pages(service)
        tender = Tender(service)
        tender.tend_workers()
        print(f"Web UI: {service.ui_url}   Start a run there, or with: prefect deployment run distill", flush=True)
        print("Ctrl-C ends the service.", flush=True)
        while True:
            time.sleep(_TEND_SECONDS)
            tender(None)
    except KeyboardInterrupt:
        print("\nEnding the workers …", flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not leave half of it running
        stop_workers(service)
        stop_pages(service.root)
        if not found_server:
            stop_server(service.root)


def stop(root: Path | None = None) -> bool:
    """End the workers, whose runs are marked Crashed, and the server that were left running; False if there is none."""
    root = root or project_root()
    own = prefect_environment(root)["PREFECT_API_URL"]
    ended = stop_workers(Service(root, os.environ.get("PREFECT_API_URL", own)))
    ended = stop_pages(root) or ended
    return stop_server(root) or ended


def _serve_pages(service: Service) -> None:
    """Give out cards, review pages and logs; a run without links is still a run."""
    try:
        print(f"Cards, review pages and logs: {find_or_start_pages(service.root)}", flush=True)
    except ServerError as error:
        print(f"The web UI will have no links to cards and review pages. {error}", flush=True)


def _print_state(state: State) -> None:
    print(f"-- {state.name}{f': {state.message}' if state.message else ''}", flush=True)


def _more_to_do(service: Service) -> bool:
    with service.client() as client:
        ours = [d for d in client.read_deployments() if d.work_pool_name == CPU]
        return any(runs_not_done(client, deployment.id) for deployment in ours)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
