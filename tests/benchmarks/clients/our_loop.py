"""labelstill: samples to predictions through prompts, server engine, ledger and parsing."""

import sys
from pathlib import Path

from tasks.asking import ask_for_labels
from tasks.costs import Tally
from tasks.ledger import Ledger
from tests.benchmarks.clients.meter import measured, task
from tests.tasks.engines.asking_stub import engine_on, questions


def main() -> None:
    """Everything an item goes through but the reading of its manifest; the engine is open before."""
    todo = task()
    folder = Path(todo.folder)
    with (
        engine_on(folder, todo.url, concurrency=todo.concurrency) as engine,
        measured(todo.count),
        Ledger(folder / "ledger.sqlite") as ledger,
    ):
        arguments = (lambda: engine, ledger, questions(todo.count), Tally())
        found = ask_for_labels(*arguments, source="teacher", model="stub", attempts=2)
        labelled = sum(prediction.label is not None for prediction in found)
    if labelled != todo.count:
        sys.exit(f"{labelled} labels for {todo.count} items")


if __name__ == "__main__":
    main()
