"""Wait through outages of Prefect's API: its server is stopped, or its database locked, for a while.

Task runs need no API while they work; flow runs do, at their beginning and end. Prefect's own client tries again for
about a minute, where it has been connected before, and the start of a subflow not at all.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

T = TypeVar("T")

_POLL_SECONDS = 2.0
_LOG_SECONDS = 60.0
_MAX_WAIT_SECONDS = 24 * 3600.0
_ATTEMPTS = 5
"""With a server that answers and yet fails the same call, as one whose database is locked: each takes a minute."""


def retry_after_outages(stage: Callable[[], T], what: str) -> T:
    """Return what `stage`, a subflow of the running flow, gives; begin it again when it ended because the API was away.

    Only for stages that find what they did before: nothing is asked or made twice. The attempt before may stay Running
    on the server until its heartbeats are missed (flows/service/automations.yaml). Raises what `stage` raises, and the
    API's last error after five attempts, or after a day of waiting.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return stage()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if not is_outage(error) or attempt == _ATTEMPTS:
                raise
            log = get_run_logger()
            log.warning("%s: Prefect's API is away (%s); waiting for it, then continuing", what, type(error).__name__)
            wait_for_api()
    raise AssertionError("the last attempt returns or raises")


def wait_for_api() -> None:
    """Wait until Prefect's API answers, for a day at most; say so in the run's log."""
    began = time.monotonic()
    said = -_LOG_SECONDS
    while (error := find_api_fault()) is not None:
        waited = time.monotonic() - began
        if waited > _MAX_WAIT_SECONDS:
            return  # the next call says what is wrong
        if waited - said >= _LOG_SECONDS:
            said = waited
            get_run_logger().warning("Waiting for Prefect's API (%.0f s): %s", waited, error)
        time.sleep(_POLL_SECONDS)
    if said >= 0:
        get_run_logger().info("Continuing after %.0f s: Prefect's API answers", time.monotonic() - began)


def find_api_fault() -> Exception | None:
    """Return why Prefect's API does not answer now; None when it does.

    The client of a running flow, connected before, would try for a minute before it says so.
    """
    # settings of its own make it a new client
    with get_client(sync_client=True, httpx_settings={"timeout": 10.0}) as client:
        return client.api_healthcheck()


def is_outage(error: httpx.TransportError | PrefectHTTPStatusError) -> bool:
    """Return whether the API is away, or answers that it can't: not that the call was wrong."""
    return isinstance(error, httpx.TransportError) or error.response.status_code >= 500
