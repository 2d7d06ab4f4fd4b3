"""Measure the review page of 1,000 screenshots of 1080×2400: seconds and megabytes, at first and when written again.

    python tests/benchmarks/review_page.py [--items 1000]

Goal: at most 30 s on two idle cores, and 60 MB. Half of the screens show a noisy photo, which costs most.
"""

import argparse
import os
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.items.images import check_image
from tasks.media import ImagePart
from tasks.records import ReviewCase
from tasks.review.page import write_review_page

_FONT = str(files("manimgx_fonts_cjk")) + "/NotoSansCJK-VF.otf.ttc"
_LABELS = ("订单页面", "物流页面", "商品详情页")


def draw_screen(number: int) -> Image.Image:
    """Return a screen with a bar, twelve lines of text in boxes and, on every other screen, a photo."""
    rng = np.random.default_rng(number)
    font = ImageFont.truetype(_FONT, 38)
    screen = Image.new("RGB", (1080, 2400), (245, 245, 247))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 1080, 180), fill=tuple(rng.integers(60, 230, 3).tolist()))
    for line in range(12):
        y = 230 + line * 110
        draw.rounded_rectangle((30, y - 15, 1050, y + 85), 18, fill="white", outline=(225, 225, 230))
        text = "".join(chr(0x4E00 + int(c)) for c in rng.integers(0, 3000, 18))
        draw.text((60, y), text, fill=(40, 40, 44), font=font)
    if number % 2:
        coarse = Image.fromarray(rng.integers(0, 255, (20, 27, 3)).astype(np.uint8)).resize((1020, 700), Image.BICUBIC)
        noisy = np.asarray(coarse).astype(float) + rng.normal(0, 12, (700, 1020, 3))
        screen.paste(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), (30, 1620))
    return screen


def main() -> None:
    """Draw the screens, write the page twice, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    count = parser.parse_args().items
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = [draw_screen(n) for n in range(min(count, 40))]
        cases: list[ReviewCase] = []
        for number in range(count):
            screen = base[number % len(base)].copy()
            ImageDraw.Draw(screen).text((60, 60), f"{number}", fill="white", font=ImageFont.truetype(_FONT, 60))
            screen.save(folder / f"{number}.png", compress_level=1)
            image = check_image(folder / f"{number}.png", 10**8)
            cases.append(
                ReviewCase(
                    sample_id=f"screen-{number}",
                    parts=(ImagePart(image=image),),
                    labels=_LABELS,
                    given=_LABELS[0],
                    candidate=_LABELS[1],
                )
            )
        page = folder / "run" / "review.html"
        for what in ("first", "again"):
            began, cpu = time.monotonic(), time.process_time()
            write_review_page(cases, page, title="Review")
            seconds, busy = time.monotonic() - began, time.process_time() - cpu
            print(
                f"{what}: {count} screenshots, {seconds:.1f} s ({busy:.1f} s of CPU time, {os.cpu_count()} cores), "
                f"{page.stat().st_size / 1e6:.1f} MB"
            )


if __name__ == "__main__":
    main()
