"""labelstill's server engine alone: requests with two images each, which it sends as base64."""

import shutil
import sys
from pathlib import Path

from tasks.media import ImagePart, ImageRef, TextPart
from tasks.records import FreeText, Outcome, Request, Sampling
from tests.benchmarks.clients.meter import measured, task
from tests.tasks.models.engines.asking_stub import open_engine_on

# The images of the benchmark are within these bounds and need no resizing.
PIXELS = {"min_pixels": 56 * 56, "max_pixels": 1280 * 784}


def main() -> None:
    """The image cache was filled before, as the other client finds its files ready; connections are open."""
    todo = task()
    requests = [
        Request(
            key=f"{number:064d}",
            sample_id=line["id"],
            purpose="answer",
            prefix="",
            parts=(*(ImagePart(image=ImageRef(**image)) for image in line["images"]), TextPart(text=line["text"])),
            suffix="",
            constraint=FreeText(),
            sampling=Sampling(max_tokens=32),
            **PIXELS,
        )
        for number, line in enumerate(todo.lines())
    ]
    warm_up = [
        r.model_copy(update={"key": f"warm-{r.key}", "parts": r.parts[:-1]}) for r in requests[: todo.concurrency]
    ]
    folder = Path(todo.folder)
    shutil.copytree(Path(todo.items).with_name("cache"), folder / "images")
    with open_engine_on(folder, todo.url, concurrency=todo.concurrency) as engine:
        assert len(list(engine.generate(warm_up))) == len(warm_up)
        with measured(todo.count):
            answered = sum(answer.outcome is Outcome.OK for answer in engine.generate(requests))
    if answered != todo.count:
        sys.exit(f"{answered} answers to {todo.count} requests")


if __name__ == "__main__":
    main()
