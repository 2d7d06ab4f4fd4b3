"""Allow only one run at a time in an output folder, no matter which deployment, terminal or machine starts it.

The operating system locks the file `<output>/.run.lock` and releases it even if the holder crashes. The file
`.run.json` beside it tells waiting runs who holds the lock.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import httpx
from filelock import FileLock, Timeout
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Completed

from flows.api import schedule_next_run, wait_for_api
from flows.config import CommonConfig
from tasks.errors import (
    AccountError,
    AnswersPending,
    BudgetSpent,
    ConfigError,
    EngineError,
    LabelstillError,
    LedgerError,
    TooManyFailures,
)
from tasks.storage.failure import forget_failure, write_failure
from tasks.storage.files import report_full_disk, write_bytes

P = ParamSpec("P")
R = TypeVar("R")

_LOCK = ".run.lock"
_HOLDER = ".run.json"
_LOG_SECONDS = 30.0
_POLL_SECONDS = 0.25
_RETRYABLE = (EngineError, LedgerError)
"""Our errors that may be temporary, such as a dead server or a locked file. A person must fix the others."""
BULK_FAILURES = (TooManyFailures, AccountError)
"""The errors after which each further question would fail too. The card and the summary show them."""


def hold_output(function: Callable[P, R]) -> Callable[P, R]:
    """Make a flow's function hold the lock of its `config.output` while it runs (`lock_output`).

    PREFECT_FLOWS_DEFAULT_RETRIES in prefect.yaml says how often a failed run is retried. A run is not retried after an
    error that would occur again. A subflow is not retried either, because its parent is retried as a whole. A run whose
    budget is spent returns None; its final state has the type Completed and the name BudgetSpent. A run that waits for
    a batch API returns the AnswersPending error; its final state has the type Completed and the name Submitted, and if
    a deployment started it, its next run is scheduled.
    """

    @wraps(function)
    def run_alone(*args: P.args, **kwargs: P.kwargs) -> R:
        config = cast(CommonConfig, kwargs["config"] if "config" in kwargs else args[0])
        run = _get_current_run()
        try:
            say = get_run_logger().info
            with lock_output(config.output, run.name if run else "", say), report_full_disk(config.output):
                if run is None or run.parent_task_run_id is None:
                    forget_failure(config.output)
                result = function(*args, **kwargs)
        except BudgetSpent as spent:
            # Not a failure, which would send an alert and be retried with a new budget.
            result = cast(R, Completed(name="BudgetSpent", message=str(spent)))
        except AnswersPending as pending:
            wait_for_api()
            when = schedule_next_run(run) if run is not None and run.parent_task_run_id is None else ""
            # Not a failure either: nothing has to be repaired.
            result = cast(R, Completed(name="Submitted", message=f"{pending}{when}", data=pending))
        except Exception as error:
            if isinstance(error, BULK_FAILURES):
                write_failure(config.output, error)
            wait_for_api()
            if run is not None and _is_final(error, run):
                _take_retries_from(run)
            raise
        wait_for_api()  # Prefect fails a finished run when it cannot report its end to the server
        return result

    return run_alone


def _get_current_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None  # pyright: ignore[reportReturnType]


def _is_final(error: Exception, run: FlowRun) -> bool:
    may_pass = isinstance(error, _RETRYABLE) and not isinstance(error, BULK_FAILURES)
    in_vain = isinstance(error, LabelstillError) and not may_pass
    return in_vain or run.parent_task_run_id is not None


def _take_retries_from(run: FlowRun) -> None:
    """Set the run's retries to 0, so that the server does not retry it."""
    policy = run.empirical_policy
    if not policy.retries:
        return
    client = get_client(sync_client=True)
    try:
        with client:
            client.update_flow_run(run.id, empirical_policy=policy.model_copy(update={"retries": 0}))
    except (httpx.HTTPError, PrefectHTTPStatusError):
        get_run_logger().warning("cannot reach the server to cancel this run's retries; it may retry the run in vain")


@dataclass(frozen=True)
class Holder:
    """The run that holds the lock of an output folder. It is stored in `.run.json`."""

    host: str
    pid: int
    run: str
    since: float
    """When the run took the lock, in seconds since 1970-01-01."""

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"run {self.run!r} (host {self.host}, pid {self.pid}), since {began}"


@contextmanager
def lock_output(
    output: Path, run: str, say: Callable[[str], None] = print, every: float = _LOG_SECONDS
) -> Generator[None]:
    """Context manager: lock the folder `output`, which is created if missing, for the run named `run`.

    While another process holds the lock, this waits and reports the holder through `say`, at once and then every
    `every` seconds. A process can lock a folder twice, so the flow of a stage does not wait for its parent flow. Raises
    ConfigError if the folder cannot be created or written.
    """
    folder = output.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One lock object per folder and process, shared by all threads, so that it can be taken again.
        lock = FileLock((folder / _LOCK).resolve(), thread_local=False, is_singleton=True, poll_interval=_POLL_SECONDS)
        _wait_for(lock, folder, say, every)
    except OSError as error:
        raise ConfigError(
            f"output: {output} can't be written ({error.strerror}); set `output` to a folder that you may write to"
        ) from error
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            holder = Holder(socket.gethostname(), os.getpid(), run, time.time())
            write_bytes(folder / _HOLDER, json.dumps(asdict(holder), ensure_ascii=False).encode())
        yield
    finally:
        if outermost:
            (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()


def read_holder(output: Path) -> Holder | None:
    """Return the holder that `.run.json` in `output` names, or None if the file is missing or unreadable."""
    try:
        return Holder(**json.loads((output / _HOLDER).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _wait_for(lock: FileLock, folder: Path, say: Callable[[str], None], every: float) -> None:
    began = time.monotonic()
    patience = 0.0
    while True:
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            patience = every
            holder = read_holder(folder) or "another run"
            say(f"Waiting for {folder} ({time.monotonic() - began:.0f} s): locked by {holder}")
        else:
            if patience:
                say(f"Continuing after {time.monotonic() - began:.0f} s: {folder} is free")
            return
