"""Show the progress of long work: an artifact in the web UI, log lines, and a live line on a terminal.

The web UI only shows what a run's files already contain. If Prefect's API is unavailable, this is logged once and the
update is tried again; the run is neither stopped nor delayed.
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
"""Seconds between two calls of Prefect's API; each call is also an event that the server stores for a week."""
_IDLE_SECONDS = 7.0
"""Seconds after which even an unchanged artifact is updated, so that people see an update every ten seconds."""
_LAST_UPDATE_SECONDS = 5.0
"""Maximum number of seconds to wait for the artifact's last update when the work ends."""
_RATE_SECONDS = 60.0
"""Seconds over which the rate is measured. Early answers come fast from the ledger and must not count for long."""
_LOG_SECONDS = 2.0
_RETRY_SECONDS = (1.0, 3.0, None)
"""Seconds to wait after each failed attempt to show something; None means to give up."""


class Progress:
    """Shows the progress of a piece of work in the running flow or task. Use it as a context manager or call `close`.

    `cost` returns what has been spent, in the currency of the configured prices, or None without prices. The
    artifact's key is `<stage>-progress`.
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
        """Count `by` more items as done and `dropped` of them as dropped."""
        self.dropped += dropped
        self.move_to(self.done + by)

    def move_to(self, done: int) -> None:
        """Set the number of items done."""
        self.done = done
        self._line.update(self._line.task_ids[0], completed=done, total=self.total)
        tenth, now = 10 * done // self.total, time.monotonic()
        if tenth > self._tenth and (now - self._said >= _LOG_SECONDS or done >= self.total):
            self._tenth, self._said = tenth, now
            self._log.info("%s", self.describe())
        if done >= self.total:
            self.close()

    def close(self) -> None:
        """Show the last count and remove the live line from the terminal. A second call has no effect."""
        self._line.stop()
        self._artifact.close()

    def describe(self) -> str:
        """Return a text with items done, total, rate and elapsed time, and if known time left, drops and cost."""
        now = time.monotonic()
        since, before = self._points[0]
        rate = (self.done - before) / max(now - since, 0.001)
        facts = [f"{self._what}: {self.done}/{self.total}", f"{rate:.1f}/s"]
        if rate > 0 and self.done < self.total:
            facts.append(f"{_format_seconds((self.total - self.done) / rate)} left")
        if self.dropped:
            facts.append(f"{self.dropped} dropped")
        cost = self._cost() if self._cost is not None else None
        if cost is not None:
            facts.append(f"cost {cost:.4f}")
        return ", ".join([*facts, f"{_format_seconds(now - self._began)} so far"])

    def _get_state(self) -> "tuple[int, float, str]":
        """Return the items done, the percentage and the description for the artifact. Called at each tick."""
        words = self.describe()
        self._points.append((time.monotonic(), self.done))
        return self.done, min(100.0, 100.0 * self.done / self.total), f"{self._stage}: {words}"


class _Words(rich.progress.ProgressColumn):
    """A column that shows a progress description beside its bar on a terminal."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: rich.progress.Task) -> Text:
        return Text(self._words())


class _Artifact:
    """The progress artifact of the current run, and the thread that updates it."""

    def __init__(self, key: str, state: Callable[[], tuple[int, float, str]], warn: Callable[..., None]) -> None:
        self._key, self._get_state, self._warn = key, state, warn
        self._task_run, self._flow_run = get_task_and_flow_run_ids()
        self._id: UUID | None = None
        self._shown: tuple[int, float] | None = None
        self._away = False
        self._ended = threading.Event()
        # Prefect's settings are in the context, and a new thread starts with an empty one.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._update,), name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show the last state if the API answers soon. A second call has no effect."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_LAST_UPDATE_SECONDS)

    def _update(self) -> None:
        # With settings of its own Prefect returns a new client instead of the run's, which ends with the run.
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
        except Exception as error:  # a fault of the web UI must not stop the work
            if not self._away:
                self._warn("the web UI does not show %s for now: %s: %s", self._key, type(error).__name__, error)
            self._away = True


def show_in_ui(what: str, show: Callable[[], T]) -> T | None:
    """Call `show`, which creates an artifact of the running flow, and return its result.

    If Prefect's API does not answer for some seconds, log a warning about `what` and return None.
    """
    for wait in _RETRY_SECONDS:
        try:
            if (away := find_api_fault()) is not None:
                raise away
            return show()
        except Exception as error:  # not lost: the same data are in the run's files
            if wait is None:
                get_run_logger().warning("the web UI does not show %s: %s: %s", what, type(error).__name__, error)
            else:
                time.sleep(wait)
    return None


def _format_seconds(seconds: float) -> str:
    """Return a duration as text, e.g. `45 s`, `12 min` or `3 h 20 min`."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"
