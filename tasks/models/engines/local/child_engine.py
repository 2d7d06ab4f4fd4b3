"""Run the local engine in a child process, so that its end frees the GPU's memory for the next model."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from tasks.models.engines.child import Child, Report
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import check_folders
from tasks.models.engines.spec import EngineSpec
from tasks.records import Generation, Request

if TYPE_CHECKING:
    from tasks.models.engines.local.engine import LocalEngine

WINDOW = 8
"""Number of batches that are read from the stream at a time; their requests are sorted by length."""


class ChildEngine:
    """A `LocalEngine` in a child process."""

    fingerprint: str
    notes: tuple[str, ...]

    def __init__(self, spec: EngineSpec, place: Workplace) -> None:
        """Load the model in a child process; raise EngineError, saying how to fix it, when that fails."""
        check_folders(spec)
        self._spec, self._place = spec, place
        self._child = Child()
        self._usage = Usage(spec.batch_size)
        self._starved = 0.0
        try:
            ((self.fingerprint, self.notes),) = self._child.stream(partial(_open, spec, place))
        except BaseException:
            self._child.close()
            raise

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Yield one generation per request, in any order; raise EngineError when the device or the child dies."""
        stream = iter(requests)
        while True:
            began = time.perf_counter()
            window = list(islice(stream, WINDOW * self._spec.batch_size))
            self._starved += time.perf_counter() - began
            if not window:
                return
            for generation, usage in self._child.stream(partial(_answer, self._spec, self._place, window)):
                self._usage = usage
                yield generation

    def usage(self) -> Usage:
        """Return how busy the engine has been."""
        used = self._usage
        return replace(used, seconds=used.seconds + self._starved, starved=used.starved + self._starved)

    def close(self) -> None:
        """End the child, which frees the model's memory."""
        self._child.close()


_engines: list["LocalEngine"] = []
"""In the child: the engine, once it is open."""


def _open(spec: EngineSpec, place: Workplace, report: Report) -> None:
    engine = _get_engine(spec, place)
    report(engine.fingerprint, engine.notes)


def _answer(spec: EngineSpec, place: Workplace, requests: Sequence[Request], report: Report) -> None:
    engine = _get_engine(spec, place)
    for generation in engine.generate(requests):
        report(generation, engine.usage())


def _get_engine(spec: EngineSpec, place: Workplace) -> "LocalEngine":
    """Return the engine; open it first in a child that has replaced another one."""
    from tasks.models.engines.local.engine import LocalEngine  # imports torch, which the parent does without

    if not _engines:
        _engines.append(LocalEngine(spec, place))
    return _engines[0]
