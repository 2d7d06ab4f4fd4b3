"""The live line on a terminal: done, items a second, time left."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class LiveLine:
    """One line that moves; nothing where the output is no terminal (the log lines at each tenth stay)."""

    def __init__(self, what: str, total: int) -> None:
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(what, total=total, rate="")
            self._bar.start()

    def to(self, done: int, total: int) -> None:
        """Move to `done` of `total`."""
        if self._bar is not None:
            speed = self._bar.tasks[0].speed
            rate = f"{speed:.1f}/s" if speed else ""
            self._bar.update(self._task, completed=done, total=total, rate=rate)

    def close(self) -> None:
        """Take the line away; safe to call twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
