"""labelstill: samples to predictions through prompts, server engine, ledger and parsing."""

import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from tasks.models.ask import stream_answers, stream_labels
from tasks.models.costs import Tally
from tasks.models.ledger.ledger import Ledger
from tasks.records import Request
from tests.benchmarks.clients.meter import Task, measured, task
from tests.tasks.models.engines.asking_stub import make_requests, open_engine_on


def requests(todo: Task) -> Iterator[Request]:
    """The requests in the task's file, one JSON a line; without a file, rendered from samples on the way."""
    if not todo.items:
        yield from make_requests(todo.count)
        return
    with open(todo.items, encoding="utf-8") as file:
        for line in islice(file, todo.count):
            yield Request.model_validate_json(line)


def main() -> None:
    """Everything after the prompts; the engine is open before."""
    todo = task()
    folder = Path(todo.folder)
    with (
        open_engine_on(folder, todo.url, concurrency=todo.concurrency) as engine,
        measured(todo.count),
        Ledger(folder / "ledger.sqlite") as ledger,
    ):
        asking = partial(stream_answers, lambda: engine, ledger, tally=Tally())
        found = stream_labels(asking, requests(todo), source="teacher", model="stub", attempts=2)
        labelled = sum(prediction.label is not None for prediction in found)
    if labelled != todo.count:
        sys.exit(f"{labelled} labels for {todo.count} items")


if __name__ == "__main__":
    main()
