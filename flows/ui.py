"""Progress of a long piece of work: an artifact in the web UI that keeps moving, log lines, a live line on a terminal.

The files a run leaves are the record, the web UI is a view of it: a Prefect API that is away is said once in the log
and tried again, and never ends a run or holds it up.
"""

import contextvars
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import rich.progress
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.utilities.context import get_task_and_flow_run_ids
from rich.console import Console
from rich.text import Text

from flows.api import find_api_fault

T = TypeVar("T")

_TICK_SECONDS = 4.0
"""Between two calls of Prefect's API. Each call is also an event that the server keeps for a week."""
_IDLE_SECONDS = 7.0
"""An artifact with nothing new to say is updated at the first tick after these: it moves every ten seconds."""
_LAST_UPDATE_SECONDS = 5.0
"""What the end of the work waits at most for the artifact's last update."""
_RATE_SECONDS = 60.0
"""Items a second are those of the last minute: a burst out of the ledger says nothing about what comes."""
_LOG_SECONDS = 2.0
_RETRY_SECONDS = (1.0, 3.0, None)
"""Seconds after each try to show something that is shown once; None: given up."""


class Progress:
    """How far a piece of work of the running flow or task is; a context manager, or ended by `close`.

    `cost` gives what was spent so far, in the currency of the configured prices, or None where none are. The artifact's
    key is `<stage>-progress`. Needs a flow or task run around it.
    """

    def __init__(self, stage: str, what: str, total: int, cost: Callable[[], float | None] | None = None) -> None:
        self.total = max(total, 1)
        self.done = 0
        self.dropped = 0
        self._stage, self._what, self._cost = stage, what, cost
        self._began = time.monotonic()
        self._points = deque([(self._began, 0)], maxlen=round(_RATE_SECONDS / _TICK_SECONDS))
        self._tenth, self._said = 0, 0.0
        self._log = get_run_logger()
        self._line = rich.progress.Progress(
            rich.progress.BarColumn(), _Words(self.describe), console=Console(stderr=True), transient=True,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._line.add_task(what, total=self.total)
        self._line.start()
        self._artifact = _Artifact(f"{stage.replace('_', '-')}-progress", self._get_state, self._log.warning)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, by: int = 1, *, dropped: int = 0) -> None:
        """Count `by` more done, of which `dropped` came to nothing."""
        self.dropped += dropped
        self.move_to(self.done + by)

    def move_to(self, done: int) -> None:
        """Set the count."""
        self.done = done
        self._line.update(self._line.task_ids[0], completed=done, total=self.total)
        tenth, now = 10 * done // self.total, time.monotonic()
        if tenth > self._tenth and (now - self._said >= _LOG_SECONDS or done >= self.total):
            self._tenth, self._said = tenth, now
            self._log.info("%s", self.describe())
        if done >= self.total:
            self.close()

    def close(self) -> None:
        """Show the last count and take the live line off the terminal; safe to call twice."""
        self._line.stop()
        self._artifact.close()

    def describe(self) -> str:
        """Done, total, items a second, time left, dropped, cost, time since the start; the unknown is left out."""
        now = time.monotonic()
        since, before = self._points[0]
        rate = (self.done - before) / max(now - since, 0.001)
        said = [f"{self._what}: {self.done}/{self.total}", f"{rate:.1f}/s"]
        if rate > 0 and self.done < self.total:
            said.append(f"{_format_seconds((self.total - self.done) / rate)} left")
        said += [f"{self.dropped} dropped"] if self.dropped else []
        cost = self._cost() if self._cost is not None else None
        said += [f"cost {cost:.4f}"] if cost is not None else []
        return ", ".join([*said, f"{_format_seconds(now - self._began)} so far"])

    def _get_state(self) -> "tuple[int, float, str]":
        """Done, per cent and words, for the artifact; called at each tick."""
        words = self.describe()
        self._points.append((time.monotonic(), self.done))
        return self.done, min(100.0, 100.0 * self.done / self.total), f"{self._stage}: {words}"


class _Words(rich.progress.ProgressColumn):
    """The words of a progress beside its bar on a terminal."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: rich.progress.Task) -> Text:
        return Text(self._words())


class _Artifact:
    """A progress artifact of the run in whose context it is made, and the thread that keeps it moving."""

    def __init__(self, key: str, state: Callable[[], tuple[int, float, str]], warn: Callable[..., None]) -> None:
        self._key, self._get_state, self._warn = key, state, warn
        self._task_run, self._flow_run = get_task_and_flow_run_ids()
        self._id: UUID | None = None
        self._shown: tuple[int, float] | None = None
        self._away = False
        self._ended = threading.Event()
        # Prefect's settings are in the context; a thread starts with an empty one
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._update,), name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show the last state, as far as the API answers soon; safe to call twice."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_LAST_UPDATE_SECONDS)

    def _update(self) -> None:
        # settings of its own, so that the run's client, which ends with the run, is not taken
        with get_client(sync_client=True, httpx_settings={"timeout": 10.0}) as client:
            self._show(client)
            while not self._ended.wait(_TICK_SECONDS):
                self._show(client)
            self._show(client, last=True)

    def _show(self, client: SyncPrefectClient, *, last: bool = False) -> None:
        try:
            done, percent, words = self._get_state()
            now = time.monotonic()
            if self._id is None:
                wanted = ArtifactCreate(
                    key=self._key, type="progress", description=words, data=percent,
                    flow_run_id=self._flow_run, task_run_id=self._task_run,
                )  # fmt: skip
                self._id = client.create_artifact(wanted).id
            elif last or self._shown is None or self._shown[0] != done or now - self._shown[1] >= _IDLE_SECONDS:
                client.update_artifact(self._id, ArtifactUpdate(data=percent, description=words))
            else:
                return
            self._shown, self._away = (done, now), False
        except Exception as error:  # whatever keeps it from being shown, the work goes on
            if not self._away:
                self._warn("the web UI does not show %s for now: %s: %s", self._key, type(error).__name__, error)
            self._away = True


def show_in_ui(what: str, show: Callable[[], T]) -> T | None:
    """What `show` gives, which makes an artifact of the running flow; None, and a line in the log, when Prefect's API
    does not answer for some seconds."""
    for wait in _RETRY_SECONDS:
        try:
            if (away := find_api_fault()) is not None:
                raise away
            return show()
        except Exception as error:  # the same data are in the run's files
            if wait is None:
                get_run_logger().warning("the web UI does not show %s: %s: %s", what, type(error).__name__, error)
            else:
                time.sleep(wait)
    return None


def _format_seconds(seconds: float) -> str:
    """Seconds as people read them."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"
