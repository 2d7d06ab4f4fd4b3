"""One look at the batch stub, as a run takes it; a module of its own, so that a forked process starts at once."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from transformers import AutoProcessor, AutoTokenizer

from tasks.errors import AnswersPending
from tasks.models.ask import stream_answers
from tasks.models.costs import Tally
from tasks.models.engines.batch import sending
from tasks.models.engines.batch.engine import BatchEngine
from tasks.models.engines.engine import Workplace
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.models.ledger.ledger import Ledger
from tasks.records import Generation, Request
from tests.tasks.models.engines.asking_stub import make_requests

# a server engine loads a tokenizer, for which transformers' lazy imports take five seconds
PRELOADED = (AutoProcessor, AutoTokenizer)


def look(folder: Path, url: str, requests: list[Request], **fields: Any) -> tuple[list[Generation], str]:
    """Ask `requests` once; return the answers that are there, and what is said of the others (empty: nothing)."""
    spec = EngineSpec(engine="server", model="stub", base_urls=(url,), batch=True, **fields)
    place = Workplace(images=ImageCache(folder / "images"), logs=folder, ledger=folder / "ledger.sqlite")
    answers: list[Generation] = []
    with Ledger(folder / "ledger.sqlite") as ledger, closing(BatchEngine(spec, place)) as engine:
        try:
            for _, answer in stream_answers(lambda: engine, ledger, requests, Tally()):
                answers.append(answer)
        except AnswersPending as pending:
            return answers, str(pending)
    return answers, ""


def run(folder: Path, url: str, count: int, per_file: int) -> None:
    """Take one look at `count` requests, with at most `per_file` in a file; exit with 5 while some are not answered."""
    sending.MOST_QUESTIONS = per_file
    _, pending = look(folder, url, list(make_requests(count)))
    sys.exit(5 if pending else 0)
