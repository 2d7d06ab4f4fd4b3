"""A run that tests kill. Its own module, so that a process forked after importing it starts at once."""

from contextlib import closing
from pathlib import Path

from transformers import AutoProcessor, AutoTokenizer

from tasks.models.ask import stream_answers
from tasks.models.costs import Tally
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.models.ledger.ledger import Ledger
from tests.tasks.models.engines.asking_stub import make_requests

# a server engine loads a tokenizer, for which transformers' lazy imports take five seconds
PRELOADED = (AutoProcessor, AutoTokenizer)


def run(folder: Path, url: str, count: int, concurrency: int) -> None:
    """Ask the stub at `url` those of `count` requests that the ledger in `folder` cannot answer."""
    spec = EngineSpec(engine="server", model="stub", base_urls=(url,), concurrency=concurrency)
    with (
        Ledger(folder / "ledger.sqlite") as ledger,
        closing(open_engine(spec, Workplace(images=ImageCache(folder / "images"), logs=folder))) as engine,
    ):
        for _ in stream_answers(lambda: engine, ledger, make_requests(count), Tally()):
            pass
