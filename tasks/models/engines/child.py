"""Run Python work in a child process that never outlives this one, and whose memory is free when it has ended.

A model that was loaded in this process keeps its GPU's memory until this process ends, so models run in children where
there is a GPU. A child runs one piece of work after another; a killed one can be started again.
"""

import copy
import logging
import logging.handlers
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from typing import Any, TypeVar

from tasks.errors import EngineError

T = TypeVar("T")

Report = Callable[..., None]
"""A function that sends its arguments, as a tuple, to the parent process."""

_LOGGER = "labelstill"
_OWNER_SECONDS = 1.0
"""Interval at which a child checks whether its parent is alive."""
_POLL_SECONDS = 0.5
_END_SECONDS = 10.0
"""Time that a child without work gets to end by itself, with what it has started."""


class ChildDied(EngineError):
    """A child process ended before its work was done."""


class Child:
    """A child process for Python work. It is started at the first work, and again when it has died.

    `close` may be called from any thread.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Prepare a child; `environment` has the variables that are changed in it."""
        self._environment = dict(environment or {})
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._closed = False

    def stream(self, work: Callable[[Report], object]) -> Iterator[tuple[Any, ...]]:
        """Run `work(report)` in the child, and yield what it reports.

        `work` and everything that it reports must be picklable. What it logs is logged here, and what it raises is
        raised here. Raises ChildDied when the child ends too early. The child is killed if the iteration is given up.
        """
        connection = self._start()
        done = False
        try:
            connection.send(work)
            while (message := self._receive(connection)) is not None:
                if isinstance(message, logging.LogRecord):
                    logging.getLogger(message.name).handle(message)
                elif isinstance(message, BaseException):
                    done = True
                    raise message
                else:
                    yield message
            done = True
        finally:
            if not done:
                self._kill()

    def end(self) -> None:
        """End the child, which frees its memory; the next work starts another. Not while `stream` is iterated."""
        if self._connection is not None and self._process is not None:
            self._connection.close()  # the child then ends by itself
            self._process.join(_END_SECONDS)
        self._kill()

    def close(self) -> None:
        """Kill the child, for good. Safe to call twice."""
        self._closed = True
        if (process := self._process) is not None:  # whoever iterates `stream` closes the connection
            process.kill()
            process.join()

    def _start(self) -> Connection:
        if self._closed:
            raise EngineError("the child process was closed")
        if self._process is None or self._connection is None:
            context = get_context("spawn")
            self._connection, theirs = context.Pipe()
            level = logging.getLogger(_LOGGER).getEffectiveLevel()
            self._process = context.Process(target=_serve, args=(theirs, os.getpid(), self._environment, level))
            self._process.start()
            theirs.close()
        return self._connection

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _receive(self, connection: Connection) -> Any:
        process = self._process
        try:
            # processes that the child has started may keep its end of the pipe open
            while not connection.poll(_POLL_SECONDS):
                if self._closed or process is None or (not process.is_alive() and not connection.poll()):
                    raise EOFError
            return connection.recv()
        except (OSError, EOFError):
            if self._closed:
                raise EngineError("the child process was closed") from None
            assert process is not None
            process.join(_POLL_SECONDS)  # its end of the pipe is closed before it has ended
            code = process.exitcode
            how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
            hint = "; often the machine lacks memory" if code == -signal.SIGKILL else ""
            raise ChildDied(f"the child process {how}{hint}") from None


def run_in_child(work: Callable[[], T]) -> T:
    """Run `work` in a new child process and return what it returns; raise what `Child.stream` raises."""
    child = Child()
    try:
        ((result,),) = child.stream(partial(_report_result, work))
        return result
    finally:
        child.close()


def _report_result(work: Callable[[], object], report: Report) -> None:
    report(work())


class _Sender(logging.handlers.QueueHandler):
    """Sends log records to the parent."""

    def __init__(self, send: Callable[[object], None]) -> None:
        super().__init__(SimpleQueue())
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        self._send(record)


def _serve(connection: Connection, owner: int, environment: Mapping[str, str], level: int) -> None:
    """Run the work that the parent sends. `environment` is set before the work's modules are imported."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock:
            connection.send(message)

    logger = logging.getLogger(_LOGGER)
    logger.addHandler(_Sender(send))
    logger.setLevel(level)
    logger.propagate = False
    while True:
        try:
            work = connection.recv()
        except EOFError:
            return
        except Exception as error:  # of a module that cannot be imported here
            send(_make_sendable(error))
            continue
        try:
            work(lambda *report: send(report))
        except BaseException as error:
            send(_make_sendable(error))
        else:
            send(None)
        work = None  # frees its memory


def _make_sendable(error: BaseException) -> BaseException:
    """Return the error with its traceback as a note, or an EngineError with its text if it cannot be pickled."""
    text = "".join(traceback.format_exception(error))
    error.add_note(f"in a child process:\n{text}")
    try:
        copy.deepcopy(error)  # by the same protocol
    except Exception:  # any class of error may refuse to be copied
        error = EngineError(f"{type(error).__name__}: {error}")
        error.add_note(f"in a child process:\n{text}")
    return error


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_OWNER_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
