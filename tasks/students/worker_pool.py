"""A pool of processes for trials, which never outlives the process that made it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context

_OWNER_SECONDS = 1.0
"""Between two looks of a process for whether its owner lives."""


@contextmanager
def worker_pool(count: int, initializer: Callable[..., object], *arguments: object) -> Generator[ProcessPoolExecutor]:
    """Give a pool of `count` fresh processes, each begun with `initializer(*arguments)`, that never outlives us.

    The executor itself would let its processes finish what they do, for hours, before a cancelled run ends, and leave
    them running when we are killed. When an exception leaves the block they are killed, and when we are gone they end.
    """
    others = set(active_children())
    start = (os.getpid(), initializer, *arguments)
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, start) as pool:
        try:
            yield pool
        except BaseException:
            for child in set(active_children()) - others:
                child.kill()
            pool.shutdown(cancel_futures=True)
            raise


def _begin(owner: int, initializer: Callable[..., object], *arguments: object) -> None:
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    initializer(*arguments)


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_OWNER_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
