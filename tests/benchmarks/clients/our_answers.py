"""labelstill's server engine with the ledger, kept busy: the client of `in_flight.py`."""

from pathlib import Path

from tasks.models.ask import stream_answers
from tasks.models.costs import Tally
from tasks.models.ledger.ledger import Ledger
from tasks.records import Outcome
from tests.benchmarks.clients.meter import measured, task
from tests.tasks.models.engines.asking_stub import make_requests, open_engine_on


def main() -> None:
    """Ask everything; the stub measures."""
    todo = task()
    folder = Path(todo.folder)
    with (
        open_engine_on(folder, todo.url, concurrency=todo.concurrency) as engine,
        measured(todo.count),
        Ledger(folder / "ledger.sqlite") as ledger,
    ):
        for _, answer in stream_answers(lambda: engine, ledger, make_requests(todo.count), Tally()):
            if answer.outcome is not Outcome.OK:
                raise RuntimeError(f"an item is lost: {answer}")


if __name__ == "__main__":
    main()
