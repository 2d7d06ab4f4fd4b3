"""Run trials in a pool of processes that ends with the process that made it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context

_OWNER_SECONDS = 1.0
"""Seconds between a worker's checks whether its owner is still running."""


@contextmanager
def worker_pool(count: int, initializer: Callable[..., object], *arguments: object) -> Generator[ProcessPoolExecutor]:
    """Yield a pool of `count` new processes, each initialised by `initializer(*arguments)`.

    An exception in the block kills the processes, and they end when this process does. A plain executor would let them
    finish their work, for hours, before a cancelled run ends, and leave them running when this process is killed.
    """
    others = set(active_children())
    owner_and_arguments = (os.getpid(), initializer, *arguments)
    with ProcessPoolExecutor(count, get_context("spawn"), _start, owner_and_arguments) as pool:
        try:
            yield pool
        except BaseException:
            for child in set(active_children()) - others:
                child.kill()
            pool.shutdown(cancel_futures=True)
            raise


def _start(owner: int, initializer: Callable[..., object], *arguments: object) -> None:
    threading.Thread(target=_exit_with_owner, args=(owner,), daemon=True).start()
    initializer(*arguments)


def _exit_with_owner(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_OWNER_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
