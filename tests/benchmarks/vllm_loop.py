"""Benchmark 7: our whole loop on a real vLLM against a bare client that sends the same bodies.

Ours: requests through image cache, server engine, ledger (durable) and parser. The peer: bodies made before, answers
thrown away. Both at the same concurrency, in turn, on the same server, whose caches a first round has filled for both.
"""

import logging
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from tasks.models.ask import stream_answers, stream_labels
from tasks.models.costs import Tally
from tasks.models.engines.engine import Workplace
from tasks.models.engines.server.chat import build_chat_body, make_image_url
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine
from tasks.models.image_cache import ImageCache
from tasks.models.ledger.ledger import Ledger
from tasks.records import Request, Sampling
from tests.benchmarks.clients.bare import send, teacher
from tests.quick_teacher import MAX_PIXELS, MIN_PIXELS, ask_label, screen_samples

ROUNDS, ITEMS, CONCURRENCY, GOAL = 11, 400, 64, 0.95


def body(request: Request, engine: VllmEngine, cache: ImageCache) -> bytes:
    """What the server engine sends for `request`."""
    limits = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels, "patch_size": 14}
    images = [make_image_url(cache.file(image, **limits), local=True) for image in request.images]
    return build_chat_body(request, engine.process.model, images, engine.capabilities, n=1, seed=0)


def ours(engine: VllmEngine, requests: list[Request], folder: Path) -> float:
    """Items a second, from requests to predictions with every answer on disk."""
    began = time.perf_counter()
    with Ledger(folder / "ledger.sqlite") as ledger:
        asking = partial(stream_answers, lambda: engine, ledger, tally=Tally())
        found = stream_labels(asking, iter(requests), source="teacher", model="m", attempts=1)
        labelled = sum(prediction.label is not None for prediction in found)
    if labelled < 0.99 * len(requests):
        raise RuntimeError(f"{labelled} labels for {len(requests)} items")
    return len(requests) / (time.perf_counter() - began)


def bare(engine: VllmEngine, bodies: list[bytes]) -> float:
    """Items a second, from bodies to JSON."""
    began = time.perf_counter()
    send(engine.process.base_url + "/chat/completions", bodies, CONCURRENCY)
    return len(bodies) / (time.perf_counter() - began)


def main() -> None:
    """Measure in turn, print medians and the ratio."""
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = EngineSpec(model=str(teacher()), min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS, concurrency=CONCURRENCY)
        requests = [ask_label(s, Sampling(max_tokens=48)) for s in screen_samples(ITEMS, 77, folder / "screens")]
        place = Workplace(ImageCache(folder / "images"), folder / "logs", most_images=1)
        engine = VllmEngine(spec, place)
        try:
            bodies = [body(request, engine, place.images) for request in requests]
            bare(engine, bodies)
            figures: dict[str, list[float]] = {"labelstill": [], "bare aiohttp": []}
            for number in range(ROUNDS):
                work = folder / str(number)
                work.mkdir()
                # each goes first in turn, so that a machine that tires or warms up favours neither
                for who in sorted(figures, reverse=number % 2 == 1):
                    one = ours(engine, requests, work) if who == "labelstill" else bare(engine, bodies)
                    figures[who].append(one)
        finally:
            engine.close()
    print(f"{ITEMS} screens, JSON schema with a reason, {CONCURRENCY} in flight, real vLLM: items a second")
    for who, rates in figures.items():
        print(f"  {who:14}{median(rates):8.1f}   ({', '.join(f'{rate:.1f}' for rate in rates)})")
    ratio = median(figures["labelstill"]) / median(figures["bare aiohttp"])
    print(f"  ours / bare: {ratio:.3f} (goal ≥ {GOAL}): {'met' if ratio >= GOAL else 'NOT MET'}")


if __name__ == "__main__":
    main()
