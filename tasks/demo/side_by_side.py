"""Share the batches of a training between processes, which average their gradients after every step.

The demo's models are so small that the threads of one process mostly wait for each other: on two cores, two threads
took three times as long as one, and two processes half as long.
"""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from torch.multiprocessing.spawn import spawn

Progress = Callable[[str, int, int, float], None]
"""A function that is called with (model's name, steps done, total steps, loss)."""

_POLL_SECONDS = 0.2


def train_together(train: Callable[[Progress], None], processes: int, progress: Progress) -> None:
    """Call `train(progress)` in each of `processes` new processes with one thread each, and wait for them.

    With one process, call it in this one. `train` must be picklable. The steps of the first process are reported to
    `progress`. Raises torch.multiprocessing.ProcessRaisedException if one of them fails; the others are ended. All end
    with this process.
    """
    if processes == 1:
        return train(progress)
    steps: Any = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    children: Any = spawn(_begin, (train, processes, port, steps), processes, join=False)
    try:
        done = False
        while not done:
            done = children.join(timeout=_POLL_SECONDS)
            while not steps.empty():
                progress(*steps.get())
    except BaseException:  # also when the run is cancelled
        for child in children.processes:
            child.kill()
        raise


def is_first_process() -> bool:
    """Return whether this process is the one that writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_others() -> None:
    """Wait until every process of the training has come to this point."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _begin(rank: int, train: Callable[[Progress], None], processes: int, port: int, steps: Any) -> None:
    """Run the training as process number `rank`; transformers' trainer finds the others through the environment."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1", OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    try:
        train(lambda *step: steps.put(step) if rank == 0 else None)
    finally:
        torch.distributed.destroy_process_group()
