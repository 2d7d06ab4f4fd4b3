"""What a measured client is told, and how it is measured. Standard library only: peers' environments have no more."""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """One measurement."""

    url: str
    """Of the stub, with `/v1`."""
    folder: str
    """Empty, on disk, for whatever the client keeps."""
    count: int
    concurrency: int
    items: str = ""
    """JSONL file: `id`, `text` (the whole user turn), and `labels` or `images` (paths)."""

    def lines(self) -> Iterator[dict[str, Any]]:
        """The first `count` lines of the items' file."""
        with open(self.items, encoding="utf-8") as file:
            for _, line in zip(range(self.count), file, strict=False):
                yield json.loads(line)


def task() -> Task:
    """The task that this process was started with."""
    return Task(**json.loads(sys.argv[1]))


@contextmanager
def measured(count: int) -> Iterator[None]:
    """Print CPU seconds (user and system, of this process and its ended children) and wall seconds of the block."""
    cpu, wall = _cpu(), time.perf_counter()
    yield
    figures = {"count": count, "cpu": _cpu() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps(figures), flush=True)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
