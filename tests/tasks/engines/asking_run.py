"""A run that can be killed: ask COUNT requests of the stub at URL, ledger in FOLDER.

`python -m tests.tasks.engines.asking_run FOLDER URL COUNT CONCURRENCY`
"""

import sys
from pathlib import Path

from tasks.asking import ask
from tasks.costs import Tally
from tasks.engines import EngineSpec, Workplace, open_engine
from tasks.images import ImageCache
from tasks.ledger import Ledger
from tests.tasks.engines.asking_stub import questions


def main(folder: Path, url: str, count: int, concurrency: int) -> None:
    """Ask everything that the ledger does not know yet."""
    spec = EngineSpec(engine="server", model="stub", base_urls=(url,), concurrency=concurrency)
    place = Workplace(images=ImageCache(folder / "images"), logs=folder)
    with Ledger(folder / "ledger.sqlite") as ledger:
        for _ in ask(lambda: open_engine(spec, place), ledger, questions(count), Tally()):
            pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
