"""A second pass over images, from the cache, beside qwen_vl_utils.fetch_image and the processor (issue 3, benchmark 4).

CPU time of one core for an item of two phone screenshots, up to what is sent (server engine: two base64 strings) or
shown to the model (local engine: token ids, pixel values and grids, the same as the processor's but for the cache's
JPEG). Files are in the page cache for both.
"""

import base64
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from qwen_vl_utils import fetch_image
from transformers import AutoProcessor
from transformers.utils import logging

from tasks.demo.checkpoint import write_checkpoint
from tasks.media import ImageRef
from tasks.models.image_cache import ImageCache

ITEMS, ROUNDS = 5, 4
GOAL = 3
PHONE = (1080, 2340)
BOUNDS = {"min_pixels": 56 * 56, "max_pixels": 1280 * 784, "patch_size": 14}

noise = np.random.default_rng(0)


def screenshot() -> Image.Image:
    """Rows of a picture and lines of text, as a shop's page has them."""
    page = Image.new("RGB", PHONE, "#f5f5f5")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=36)
    for row in range(60, PHONE[1] - 320, 380):
        photo = Image.fromarray(noise.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((320, 320))
        page.paste(photo, (40, row))
        for line in range(5):
            draw.text((400, row + 60 * line), f"Order {noise.integers(10**9)} line {line}", fill="#222", font=font)
    return page


def saved(path: Path) -> ImageRef:
    screenshot().save(path, quality=85)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(path=str(path), sha256=digest, width=PHONE[0], height=PHONE[1])


def cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def main() -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processor = AutoProcessor.from_pretrained(write_checkpoint(folder / "model", ["请看图并回答。"] * 100))
        for kind in ("png", "jpg"):
            pairs = [[saved(folder / f"{n}{side}.{kind}") for side in "ab"] for n in range(ITEMS)]
            measure(kind, pairs, processor, ImageCache(folder / "cache"))


def measure(kind: str, pairs: list[list[ImageRef]], processor: Any, cache: ImageCache) -> None:
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "请看图并回答。"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)

    def peer(pair: list[ImageRef]) -> Any:
        shown = [fetch_image({"image": image.path, **BOUNDS}) for image in pair]
        return processor(text=[text], images=shown, return_tensors="pt")

    def server(pair: list[ImageRef]) -> list[bytes]:
        return [base64.b64encode(cache.file(image, **BOUNDS).read_bytes()) for image in pair]

    def local(pair: list[ImageRef]) -> Any:
        images = cache.open(pair, **BOUNDS)
        return processor(text=[text], images=images, do_resize=False, return_tensors="pt")

    first = [cpu(lambda pair=pair: server(pair)) for pair in pairs]
    ways = {"fetch_image + processor": peer, "server engine": server, "local engine": local}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for pair in pairs * ROUNDS:
        for way, work in ways.items():
            spent[way].append(cpu(lambda work=work, pair=pair: work(pair)))
    theirs, ours = peer(pairs[0]), local(pairs[0])
    pixels = ours["pixel_values"], theirs["pixel_values"]
    same = bool((ours["input_ids"] == theirs["input_ids"]).all()) and pixels[0].shape == pixels[1].shape
    off = float((pixels[0] - pixels[1]).abs().mean())
    print(f"Two {kind} screenshots: {', '.join(f'{way} {median(ms):.1f} ms' for way, ms in spent.items())}")
    print(f"  median of {ITEMS * ROUNDS} interleaved; first pass {median(first):.1f} ms; ids and shapes equal: {same},")
    print(f"  pixel values {off:.4f} apart in the mean")
    for way in ("server engine", "local engine"):
        ratio = median(spent["fetch_image + processor"]) / median(spent[way])
        print(f"  {way}: {ratio:.1f}× less CPU; goal ≥ {GOAL}×: {'met' if ratio >= GOAL else 'NOT met'}")


if __name__ == "__main__":
    main()
