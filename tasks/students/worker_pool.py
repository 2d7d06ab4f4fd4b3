"""Train students in child processes, which never outlive this process: one per GPU, or `parallel` on a machine without.

On a GPU each student gets a child of its own, which sees only that GPU and whose end frees the GPU's memory. Without
one, a child trains several students, because importing torch takes 10 seconds.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from tasks.errors import EngineError
from tasks.models.engines.child import Child, ChildDied
from tasks.models.engines.gpus import Gpu, await_memory, list_gpus, restrict_to
from tasks.students.lora_memory import LESS_MEMORY, Memory
from tasks.students.loss_curves import Progress

log = logging.getLogger("labelstill")


@dataclass(frozen=True)
class _Place:
    """Where one student at a time is trained."""

    child: Child
    gpu: Gpu | None


class TrainingPool:
    """Runs up to `size` trainings at the same time; `train` may be called from as many threads.

    A context manager: at the end of the block all children are ended, also when an exception leaves it.
    """

    def __init__(
        self, parallel: int, wanted: int, estimate: Callable[[], Memory | None] = lambda: None, threads: int = 1
    ) -> None:
        """Make a pool for `wanted` trainings: one at a time per GPU, or `parallel` on a machine without.

        `estimate` returns what a training needs. GPUs with less are not used; raises ConfigError if all have less.
        Without a GPU each training uses `threads` threads; with one thread, a student is the same on every machine.
        """
        gpus = list_gpus()
        self._memory = estimate() if gpus else None
        gpus = gpus if self._memory is None else self._memory.choose(gpus)
        self._places = [_Place(Child(restrict_to(gpu)), gpu) for gpu in gpus[:wanted]]
        if not gpus:
            limit = {"OMP_NUM_THREADS": str(threads)}
            self._places = [_Place(Child(limit), None) for _ in range(min(parallel, wanted))]
        self.size = len(self._places)
        self._free: SimpleQueue[_Place] = SimpleQueue()
        self._closed = False
        for place in self._places:
            self._free.put(place)

    def __enter__(self) -> "TrainingPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for place in self._places:
            place.child.close()

    def train(self, run: Callable[[Progress], object], progress: Progress) -> None:
        """Run a training in a child process and report its progress; raise what it raises.

        A child that dies is replaced once, and its training resumes from the last checkpoint.
        """
        place = self._free.get()
        try:
            try:
                self._run(place, run, progress)
            except ChildDied as error:
                log.warning("%s; the training starts again from its last checkpoint", error)
                self._run(place, run, progress)
        finally:
            if place.gpu is not None:
                place.child.end()  # only that frees the GPU's memory
            self._free.put(place)

    def _run(self, place: _Place, run: Callable[[Progress], object], progress: Progress) -> None:
        if place.gpu is not None and (memory := self._memory) is not None:
            await_memory([place.gpu.name], lambda _: memory.mib, LESS_MEMORY, self._check_open)
        for step in place.child.stream(run):
            progress(*step)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the training was ended")
