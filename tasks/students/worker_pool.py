"""Processes that train students side by side, and never outlive the process that made them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import count
from multiprocessing import active_children, get_context
from typing import Any

from tasks.students.loss_curves import Progress

_OWNER_SECONDS = 1.0
"""Between two looks of a process for whether its owner lives."""


@contextmanager
def worker_pool(size: int, initializer: Callable[..., object], *arguments: object) -> Generator[ProcessPoolExecutor]:
    """Give a pool of `size` fresh processes, each begun with `initializer(*arguments)`, that never outlives us.

    The executor itself would let its processes finish what they do, for hours, before a cancelled run ends, and leave
    them running when we are killed. When an exception leaves the block they are killed, and when we are gone they end.
    """
    others = set(active_children())
    start = (os.getpid(), initializer, *arguments)
    with ProcessPoolExecutor(size, get_context("spawn"), _begin, start) as pool:
        try:
            yield pool
        except BaseException:
            for child in set(active_children()) - others:
                child.kill()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def training_pool(size: int) -> Generator[Callable[[Callable[[Progress], object], Progress], None]]:
    """Give a function that runs a training in one of `size` processes, waits for it and passes on its progress.

    Each process computes with one thread, so that a student comes out the same on every machine. The function may be
    called from several threads at once; it raises what the training raises.
    """
    steps: Any = get_context("spawn").Queue()
    steps.cancel_join_thread()  # a process that is killed while it reports keeps the lock of the queue
    watchers: dict[int, Progress] = {}
    numbers = count()

    def pass_on() -> None:
        for number, done, total, loss in iter(steps.get, None):
            watchers[number](done, total, loss)

    threading.Thread(target=pass_on, daemon=True).start()
    with worker_pool(size, _begin_training, steps) as pool:

        def train(run: Callable[[Progress], object], progress: Progress) -> None:
            number = next(numbers)
            watchers[number] = progress
            pool.submit(_train, run, number).result()

        try:
            yield train
        finally:
            steps.put(None)


_steps: Any = None
"""In a process of `training_pool`: the queue that takes its progress."""


def _begin_training(steps: Any) -> None:
    import torch  # here, because the process that makes the pool need not load it

    global _steps
    _steps = steps
    torch.set_num_threads(1)


def _train(run: Callable[[Progress], object], number: int) -> None:
    run(lambda done, total, loss: _steps.put((number, done, total, loss)))


def _begin(owner: int, initializer: Callable[..., object], *arguments: object) -> None:
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    initializer(*arguments)


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_OWNER_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
