"""Train students at the same time in child processes that never outlive this process."""

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
"""Interval at which a child process checks whether its parent is alive."""


@contextmanager
def worker_pool(size: int, initializer: Callable[..., object], *arguments: object) -> Generator[ProcessPoolExecutor]:
    """Yield a pool of `size` new processes, each initialised with `initializer(*arguments)`.

    When a run is cancelled, a ProcessPoolExecutor alone would wait hours for its processes to finish, and when this
    process is killed, it would leave them running. Here they are killed when an exception leaves the block, and they
    end by themselves when this process is gone.
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
    """Yield a function that runs a training in one of `size` processes, waits for it and reports its progress.

    Each process computes with one thread, so that a student is the same on every machine. The function may be called
    from several threads at once; it raises what the training raises.
    """
    steps: Any = get_context("spawn").Queue()
    steps.cancel_join_thread()  # a process that is killed while it reports would keep the queue locked
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
"""The queue for progress, in a process of `training_pool`."""


def _begin_training(steps: Any) -> None:
    import torch  # imported here, because the parent process does not need it

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
