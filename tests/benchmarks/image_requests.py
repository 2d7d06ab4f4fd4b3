"""Benchmark 2: requests with two images of 330 KB as base64, against the official openai client."""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from PIL import Image

from tasks.media import ImageRef
from tasks.models.image_cache import ImageCache
from tests.benchmarks.clients.our_images import PIXELS
from tests.benchmarks.clients.peers import measure, medians, verdict
from tests.stub_server import running

ROUNDS, CONCURRENCY, ITEMS, FILES = 5, 64, 1500, 24
SIDES, BYTES = (672, 1456), 330_000
"""A phone's screen within 1,280 tokens, as the cache keeps it."""


def draw(file: Path, cache: ImageCache, number: int) -> tuple[ImageRef, Path]:
    """A JPEG whose cached form has about 330 KB: noise, with as much detail as it takes."""
    low, high = 1, 100
    while True:
        coarse = (low + high) // 2
        noise = Image.effect_noise((SIDES[0] * coarse // 100 + number + 1, SIDES[1] * coarse // 100 + 1), 60)
        noise.convert("RGB").resize(SIDES).save(file, "JPEG", quality=95)
        image = ImageRef(
            path=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest(), width=SIDES[0], height=SIDES[1]
        )
        cached = cache.file(image, **PIXELS, patch_size=14)
        size = cached.stat().st_size
        if abs(size - BYTES) < 15_000 or high - low < 2:
            return image, cached
        low, high = (coarse, high) if size < BYTES else (low, coarse)


def main() -> None:
    """Measure in turn, print medians and the ratio."""
    figures: dict[str, list[dict[str, float]]] = {"our_images": [], "openai_images": []}
    with running() as stub, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = ImageCache(folder / "cache")
        drawn = [draw(folder / f"{number}.jpg", cache, number) for number in range(FILES)]
        items = folder / "items.jsonl"
        with items.open("w", encoding="utf-8") as out:
            for number in range(ITEMS):
                pair = [drawn[number % FILES], drawn[(number * 7 + 1) % FILES]]
                images, files = [image.model_dump() for image, _ in pair], [str(cached) for _, cached in pair]
                text = f"item-{number}: what is on these screens?"
                line = {"id": f"s{number}", "text": text, "images": images, "files": files}
                out.write(json.dumps(line) + "\n")
        common = {"count": ITEMS, "concurrency": CONCURRENCY, "items": str(items)}
        for _ in range(ROUNDS):
            figures["our_images"].append(measure("our_images", stub, **common))
            figures["openai_images"].append(measure("openai_images", stub, peer="openai", **common))
        mean = sum(cached.stat().st_size for _, cached in drawn) / FILES
    found = {who: medians(rounds, ("cpu", "wall", "stub_cpu")) for who, rounds in figures.items()}
    print(f"{ITEMS:,} requests, 2 images of {mean / 1000:.0f} KB as base64, {CONCURRENCY} in flight: ", end="")
    print(f"milliseconds a request, median of {ROUNDS} interleaved runs\n  {'':14}{'CPU':>8}{'wall':>8}{'stub':>8}")
    for who, row in found.items():
        print(f"  {who:14}{row['cpu']:>8.2f}{row['wall']:>8.2f}{row['stub_cpu']:>8.2f}")
    ratio = found["our_images"]["cpu"] / found["openai_images"]["cpu"]
    print(verdict("CPU, ours / openai's", ratio, 0.2, at_most=True))


if __name__ == "__main__":
    main()
