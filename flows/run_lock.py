"""One run at a time per output folder, whichever deployment, terminal or machine it comes from.

The lock is the operating system's, on `<output>/.run.lock`, so it is free as soon as its holder dies, however that
happened. `.run.json` beside it says who holds it, for those who wait.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import httpx
from filelock import FileLock, Timeout
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Completed

from flows.api import wait_for_api
from flows.config import CommonConfig
from tasks.errors import BudgetSpent, ConfigError, EngineError, LabelstillError, LedgerError
from tasks.storage.files import report_full_disk, write_bytes

P = ParamSpec("P")
R = TypeVar("R")

_LOCK = ".run.lock"
_HOLDER = ".run.json"
_SAY_SECONDS = 30.0
_POLL_SECONDS = 0.25
_MAY_PASS = (EngineError, LedgerError)
"""Of our own errors, those that a second attempt may not meet: a dead server, a locked file. The others name what a
person must fix."""


def hold_output(function: Callable[P, R]) -> Callable[P, R]:
    """Make a flow's function, whose `config` has an `output`, the only one at work in that folder (`lock_output`).

    A run that fails is retried as its deployment says (PREFECT_FLOWS_DEFAULT_RETRIES in prefect.yaml), but not after an
    error that would come again, and not as part of a larger flow, which is retried as a whole. A run whose budget is
    spent ends Completed, by the name of BudgetSpent, and gives None.
    """

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        config = cast(CommonConfig, kwargs["config"] if "config" in kwargs else args[0])
        run = _current_run()
        try:
            say = get_run_logger().info
            with lock_output(config.output, run.name if run else "", say), report_full_disk(config.output):
                result = function(*args, **kwargs)
        except BudgetSpent as spent:
            # nothing broke: a failure would be alerted, and retried on a new budget
            result = cast(R, Completed(name="BudgetSpent", message=str(spent)))
        except Exception as error:
            wait_for_api()
            if run is not None and _is_final(error, run):
                _take_retries_from(run)
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


def _take_retries_from(run: FlowRun) -> None:
    """Set the run's retries to 0: the server then takes its failure as the end."""
    policy = run.empirical_policy
    if not policy.retries:
        return
    client = cast(SyncPrefectClient, get_client(sync_client=True))
    try:
        with client:
            client.update_flow_run(run.id, empirical_policy=policy.model_copy(update={"retries": 0}))
    except (httpx.HTTPError, PrefectHTTPStatusError):
        get_run_logger().warning("the server was not told that another try is in vain, and may make one")


@dataclass(frozen=True)
class Holder:
    """The run that works on an output folder: what `.run.json` holds."""

    host: str
    pid: int
    run: str
    since: float
    """When it took the lock, in seconds since 1970."""

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"run {self.run!r} (host {self.host}, pid {self.pid}), since {began}"


@contextmanager
def lock_output(
    output: Path, run: str, say: Callable[[str], None] = print, every: float = _SAY_SECONDS
) -> Iterator[None]:
    """Hold the folder `output`, made if need be, for the run named `run` until the block ends.

    While another process holds it this waits, and says so through `say` at once and each `every` seconds, naming the
    holder. The process that holds a folder already may take it again: a stage's flow does not wait for its parent.
    Raises ConfigError when the folder can't be made or written.
    """
    folder = output.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # one lock object per folder in this process, whichever thread asks: that is what lets it be taken again
        lock = FileLock((folder / _LOCK).resolve(), thread_local=False, is_singleton=True, poll_interval=_POLL_SECONDS)
        _wait_for(lock, folder, say, every)
    except OSError as error:
        raise ConfigError(f"output: {output} can't be written ({error.strerror}); name a folder of yours") from error
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


def holder_of(output: Path) -> Holder | None:
    """Return who last noted that they hold `output`; None where nobody did, or the note can't be read."""
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
            holder = holder_of(folder) or "another run"
            say(f"Waiting for {folder} ({time.monotonic() - began:.0f} s): locked by {holder}")
        else:
            if patience:
                say(f"Continuing after {time.monotonic() - began:.0f} s: {folder} is free")
            return
