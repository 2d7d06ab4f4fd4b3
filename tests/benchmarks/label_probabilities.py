"""Benchmark 8: label probabilities from chosen tokens against one `prompt_logprobs` request a label, on a real vLLM.

Ours is what the server engine sends after an answer: the begun answer once, and the log-probability of the tokens in
which the labels part. The peer sends every label's whole answer and adds up the log-probabilities of its tokens. Both
are for greedy answers without a reason, at the same concurrency, in turn; vLLM's CPU is that of all its processes.
"""

import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil
import torch
from transformers import AutoTokenizer

from tasks.models.engines.engine import Workplace
from tasks.models.engines.server.chat import build_probe_body, make_image_url, read_token_logprobs
from tasks.models.engines.server.label_tokens import find_branches
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine
from tasks.models.image_cache import ImageCache
from tasks.records import LabelAnswer, Request, Sampling
from tests.benchmarks.clients.bare import send, teacher
from tests.quick_teacher import MAX_PIXELS, MIN_PIXELS, ask_label, screen_samples

ROUNDS, ITEMS, CONCURRENCY, GOAL = 5, 50, 32, 10.0

Rows = list[dict[str, float]]


class Scorer:
    """Both ways of asking one server for the labels' probabilities."""

    def __init__(self, engine: VllmEngine, cache: ImageCache, tokenizer: Any) -> None:
        self.engine, self.cache, self.tokenizer = engine, cache, tokenizer

    def images(self, request: Request) -> list[bytes]:
        limits = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels, "patch_size": 14}
        return [make_image_url(self.cache.file(image, **limits), local=True) for image in request.images]

    def by_tokens(self, requests: Sequence[Request]) -> Rows:
        """One request an item."""
        form = answer_of(requests[0])
        found = find_branches(self.tokenizer, form.opening, form.labels, form.closing)
        assert found is not None and not found.root.branches, "the demo's labels part in one place"
        stem = form.opening[: len(form.opening) - found.cut] + found.root.text
        tokens = tuple(found.labels)
        bodies = [build_probe_body(r, self.engine.process.model, self.images(r), stem, tokens) for r in requests]
        rows: Rows = []
        for answer in self.send(bodies):
            logps = read_token_logprobs(answer)
            rows.append(normalised({form.labels[n]: logps[t] for t, (n,) in found.labels.items()}))
        return rows

    def by_prompts(self, requests: Sequence[Request]) -> Rows:
        """One request an item and label."""
        form = answer_of(requests[0])
        bodies: list[bytes] = []
        for request in requests:
            images = self.images(request)
            for label in form.labels:
                stem = form.opening + label + form.closing
                asked = json.loads(build_probe_body(request, self.engine.process.model, images, stem, (0,)))
                del asked["logprob_token_ids"], asked["logprobs"]
                bodies.append(json.dumps({**asked, "prompt_logprobs": 0}).encode())
        answers = iter(self.send(bodies))
        own = len(self.tokenizer(form.opening, add_special_tokens=False)["input_ids"]) - 1  # the quote may be shared
        rows: Rows = []
        for _ in requests:
            row: dict[str, float] = {}
            for label in form.labels:
                ids = self.tokenizer(form.opening + label + form.closing, add_special_tokens=False)["input_ids"]
                tail = next(answers)["prompt_logprobs"][-(len(ids) - own) :]
                row[label] = sum(entry[str(i)]["logprob"] for entry, i in zip(tail, ids[own:], strict=True))
            rows.append(normalised(row))
        return rows

    def send(self, bodies: Sequence[bytes]) -> list[dict[str, Any]]:
        return send(self.engine.process.base_urls[0] + "/chat/completions", bodies, CONCURRENCY)


def answer_of(request: Request) -> LabelAnswer:
    assert isinstance(request.constraint, LabelAnswer)
    return request.constraint


def normalised(logps: dict[str, float]) -> dict[str, float]:
    """Probabilities."""
    top = max(logps.values())
    total = sum(math.exp(p - top) for p in logps.values())
    return {label: math.exp(p - top) / total for label, p in logps.items()}


def server_cpu() -> float:
    """CPU seconds of vLLM's processes so far."""
    family = [p for p in psutil.Process().children(recursive=True) if "processes.py" not in " ".join(p.cmdline())]
    return sum(sum(p.cpu_times()[:2]) for p in family)


def main() -> None:
    """Measure in turn, print medians and ratios."""
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    torch.set_num_threads(2)
    figures: dict[str, list[tuple[float, float]]] = {"chosen tokens": [], "prompt_logprobs": []}
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), teacher()
        spec = EngineSpec(model=str(model), min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
        samples = screen_samples(ITEMS, 78, folder / "screens")
        requests = [ask_label(s, Sampling(), with_reason=False, glosses=True) for s in samples]
        place = Workplace(ImageCache(folder / "images"), folder / "logs", most_images=1)
        engine = VllmEngine(spec, place)
        try:
            scorer = Scorer(engine, place.images, AutoTokenizer.from_pretrained(model))
            ways = {"chosen tokens": scorer.by_tokens, "prompt_logprobs": scorer.by_prompts}
            ours, theirs = scorer.by_tokens(requests), scorer.by_prompts(requests)  # fills the server's caches too
            for _ in range(ROUNDS):
                for who, way in ways.items():
                    began, cpu = time.perf_counter(), server_cpu()
                    way(requests)
                    each = 1000 / ITEMS
                    figures[who].append(((time.perf_counter() - began) * each, (server_cpu() - cpu) * each))
        finally:
            engine.close()
    apart = max(abs(a[label] - b[label]) for a, b in zip(ours, theirs, strict=True) for label in a)
    count = len(ours[0])
    print(
        f"{ITEMS} screens, {count} labels, {CONCURRENCY} in flight, real vLLM: milliseconds an item, median of {ROUNDS}"
    )
    found = {who: [median(column) for column in zip(*rows, strict=True)] for who, rows in figures.items()}
    for who, (wall, cpu) in found.items():
        print(f"  {who:16}wall {wall:8.1f}   CPU of vLLM {cpu:8.1f}")
    for what, at in (("wall", 0), ("CPU of vLLM", 1)):
        ratio = found["prompt_logprobs"][at] / found["chosen tokens"][at]
        print(f"  {what}, theirs / ours: {ratio:.1f} (goal ≥ {GOAL:g}): {'met' if ratio >= GOAL else 'NOT MET'}")
    print(f"  largest difference between the two ways' probabilities: {apart:.4f}")


if __name__ == "__main__":
    main()
