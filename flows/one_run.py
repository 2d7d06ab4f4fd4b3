"""What every flow that writes an output folder does around its work: hold the folder, and not try again in vain."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Completed

from flows.api import wait_for_api
from flows.config import CommonConfig
from flows.run_lock import output_lock
from tasks.errors import BudgetSpent, EngineError, LabelstillError, LedgerError
from tasks.storage.files import writing

P = ParamSpec("P")
R = TypeVar("R")

_MAY_PASS = (EngineError, LedgerError)
"""Of our own errors, those that a second try may not meet: a dead server, a locked file. The others name what a person
must mend."""


def one_run(function: Callable[P, R]) -> Callable[P, R]:
    """Make a flow's function, whose `config` has an `output`, the only one at work in that folder (`output_lock`).

    A run that fails is tried again as its deployment says (PREFECT_FLOWS_DEFAULT_RETRIES in prefect.yaml), but not
    with an error that would come again, and not as part of a larger flow, which is tried again as a whole. One whose
    budget is spent ends Completed, by the name of BudgetSpent, and gives None.
    """

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        config = cast(CommonConfig, kwargs["config"] if "config" in kwargs else args[0])
        run = _current_run()
        try:
            say = get_run_logger().info
            with output_lock(config.output, run.name if run else "", say), writing(config.output):
                result = function(*args, **kwargs)
        except BudgetSpent as spent:
            # nothing broke: a failure would be alerted, and tried again on a new budget
            result = cast(R, Completed(name="BudgetSpent", message=str(spent)))
        except Exception as error:
            wait_for_api()
            if run is not None and _is_final(error, run):
                _fail_for_good(run)
            raise
        wait_for_api()  # Prefect would fail a finished run whose end it can't tell the server
        return result

    return alone


def _current_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None  # pyright: ignore[reportReturnType]


def _is_final(error: Exception, run: FlowRun) -> bool:
    in_vain = isinstance(error, LabelstillError) and not isinstance(error, _MAY_PASS)
    return in_vain or run.parent_task_run_id is not None


def _fail_for_good(run: FlowRun) -> None:
    """Take the run's retries from it: the server then takes its failure as the end."""
    policy = run.empirical_policy
    if not policy.retries:
        return
    client = cast(SyncPrefectClient, get_client(sync_client=True))
    try:
        with client:
            client.update_flow_run(run.id, empirical_policy=policy.model_copy(update={"retries": 0}))
    except (httpx.HTTPError, PrefectHTTPStatusError):
        get_run_logger().warning("the server was not told that another try is in vain, and may make one")
