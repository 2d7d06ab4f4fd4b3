"""Prefect's API away for a while, its server stopped or its database locked: a run waits for it and goes on.

Task runs need no API while they work; flow runs do, at their beginning and end. Prefect's own client tries again for
about a minute, where it has been connected before, and the start of a subflow not at all.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError

from flows.service.follow import crash_rest

T = TypeVar("T")

_POLL_SECONDS = 2.0
_SAY_SECONDS = 60.0
_PATIENCE_SECONDS = 24 * 3600.0
_TRIES = 5
"""With a server that answers and yet fails the same call, as one whose database is locked: each takes a minute."""


def through_outages(stage: Callable[[], T], what: str) -> T:
    """What `stage`, a subflow of the running flow, gives; begun again when it ended because the API was away.

    Only for stages that find what they did before: nothing is asked or made twice. Of the former try the server may
    still say Running; it is marked Crashed. Raises what `stage` raises, and the API's last error after five tries, or
    after a day of waiting.
    """
    for tried in range(1, _TRIES + 1):
        try:
            return stage()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if not is_outage(error) or tried == _TRIES:
                raise
            log = get_run_logger()
            log.warning("%s: Prefect's API is away (%s); waits for it, then goes on", what, type(error).__name__)
            wait_for_api()
            _mark_former_try()
    raise AssertionError("the last try returns or raises")


def wait_for_api() -> None:
    """Return once Prefect's API answers, after a day at the latest; says so in the run's log when it has to wait."""
    began, said = time.monotonic(), -_SAY_SECONDS
    while (error := unanswered()) is not None:
        waited = time.monotonic() - began
        if waited > _PATIENCE_SECONDS:
            return  # the next call says what is wrong
        if waited - said >= _SAY_SECONDS:
            said = waited
            get_run_logger().warning("Waiting for Prefect's API (%.0f s): %s", waited, error)
        time.sleep(_POLL_SECONDS)
    if said >= 0:
        get_run_logger().info("Continuing after %.0f s: Prefect's API answers", time.monotonic() - began)


def unanswered() -> Exception | None:
    """Why Prefect's API does not answer now; None when it does.

    The client of a running flow, connected before, would try for a minute before it says so.
    """
    # settings of its own make it a new client
    with get_client(sync_client=True, httpx_settings={"timeout": 10.0}) as client:
        return client.api_healthcheck()


def is_outage(error: httpx.TransportError | PrefectHTTPStatusError) -> bool:
    """Whether the API is away, or answers that it can't: not that the call was wrong."""
    return isinstance(error, httpx.TransportError) or error.response.status_code >= 500


def _mark_former_try() -> None:
    run = FlowRunContext.get()
    assert run is not None and run.flow_run is not None, "called in a flow"
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": 30.0}) as client:
            crash_rest(client, run.flow_run.id)
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        get_run_logger().warning("the former try stays Running in the web UI: %s", error)
