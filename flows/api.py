"""Reach Prefect's API: clients, keys stored there, the next run, and waiting while the server is stopped or locked.

A task run does not need the API while it works, but a flow run needs it when it starts and ends. Once connected,
Prefect's client retries a call for about a minute. It never retries the start of a subflow.
"""

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
from prefect import get_run_logger
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from tasks.models.engines.spec import EngineSpec, name_secret_block

T = TypeVar("T")

_POLL_SECONDS = 2.0
_LOG_SECONDS = 60.0
_MAX_WAIT_SECONDS = 24 * 3600.0
_NEXT_LOOK = timedelta(minutes=30)
"""After so long a deployment looks again for the answers of a batch API: one look is a few calls per batch."""
_ATTEMPTS = 5
"""Limits attempts when the server answers but the same call keeps failing. Each attempt takes a minute."""


@contextmanager
def open_client(api_url: str) -> Generator[SyncPrefectClient]:
    """Context manager: a client of the server at `api_url`, with the key or password in Prefect's settings."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        yield client


def load_api_key(spec: EngineSpec) -> None:
    """Set the environment variable `spec.api_key_env` from the Prefect Secret block of that name, unless it is set.

    The block of OPENAI_API_KEY is `openai-api-key`. Without a block nothing happens; the engine says what is missing.
    """
    name = spec.api_key_env
    if name is None or os.environ.get(name):
        return
    with suppress(ValueError):  # there is no such block
        block: Any = Secret.load(name_secret_block(name))  # pyright: ignore[reportUnknownMemberType]
        os.environ[name] = str(block.get())


def retry_after_outages(stage: Callable[[], T], what: str) -> T:
    """Run `stage` as a subflow and return its result. If Prefect's API becomes unavailable, wait and run it again.

    Running a stage again is safe, because it reuses its earlier work. The server may show the failed attempt as Running
    until its heartbeats are missed (flows/service/automations.yaml). Raises what `stage` raises, and the API's last
    error after five attempts or after a wait of one day.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return stage()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if not is_outage(error) or attempt == _ATTEMPTS:
                raise
            log = get_run_logger()
            log.warning("%s: Prefect's API is unavailable (%s); waiting for it", what, type(error).__name__)
            wait_for_api()
    raise AssertionError("the last attempt returns or raises")


def wait_for_api() -> None:
    """Wait until Prefect's API answers, for at most a day, and log the wait."""
    began = time.monotonic()
    logged = -_LOG_SECONDS
    while (error := find_api_fault()) is not None:
        waited = time.monotonic() - began
        if waited > _MAX_WAIT_SECONDS:
            return  # the next call raises the error
        if waited - logged >= _LOG_SECONDS:
            logged = waited
            get_run_logger().warning("Waiting for Prefect's API (%.0f s): %s", waited, error)
        time.sleep(_POLL_SECONDS)
    if logged >= 0:
        get_run_logger().info("Continuing after %.0f s: Prefect's API answers again", time.monotonic() - began)


def schedule_next_run(run: FlowRun) -> str:
    """Schedule the next run of the deployment that started `run`, unless one is scheduled; return a sentence about it.

    The new run has the same parameters. Nothing happens, and the sentence is empty, if no deployment started `run`.
    """
    if run.deployment_id is None:
        return ""
    due = datetime.now(UTC) + _NEXT_LOOK
    scheduled = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
    )
    with get_client(sync_client=True) as client:
        times = [r.next_scheduled_start_time for r in client.read_flow_runs(flow_run_filter=scheduled, limit=200)]
        if not any(time is not None and time <= due for time in times):
            client.create_flow_run_from_deployment(
                run.deployment_id, parameters=run.parameters, state=Scheduled(scheduled_time=due), tags=run.tags
            )
    return f"\nThe next look is scheduled within {_NEXT_LOOK.total_seconds() / 60:.0f} minutes."


def find_api_fault() -> Exception | None:
    """Return the error that Prefect's API currently raises, or None if it responds.

    Uses a client of its own, because the flow's would retry for a minute before it reports a fault.
    """
    # With settings of its own Prefect returns a new client instead of the flow's.
    with get_client(sync_client=True, httpx_settings={"timeout": 10.0}) as client:
        return client.api_healthcheck()


def is_outage(error: httpx.TransportError | PrefectHTTPStatusError) -> bool:
    """Return whether `error` means that the API is unavailable or has a server error, and not that a call was wrong."""
    return isinstance(error, httpx.TransportError) or error.response.status_code >= 500
