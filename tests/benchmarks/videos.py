"""Frames of recordings, first and second use, beside qwen_vl_utils.fetch_video with decord (issue 19, benchmark 6).

CPU seconds of all threads until the frames' pixels are in memory, on the same drawn files, in turn: a screen that is
scrolled, a noisy camera, and a long recording of which few parts are needed. Both take the same frames and may use as
many pixels. Ours are also hashed, stored as JPEG and decoded from there. The second use reads what the first stored.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.items.settings import VideoSettings
from tasks.items.videos import check_videos
from tasks.media import VideoRef
from tests.benchmarks.clients.peers import QUIET, python_of, verdict
from tests.stub_server import ROOT

ROUNDS = 5
FIRST, SECOND = 1.1, 0.5
SETTINGS = VideoSettings()
# fetch_video counts the pixels of each pair of frames once
BOUNDS = {
    "fps": SETTINGS.fps,
    "max_frames": SETTINGS.max_frames,
    "min_pixels": 16 * 28 * 28,
    "total_pixels": SETTINGS.max_pixels / 2,
}

noise = np.random.default_rng(0)


def draw_screen(width: int, height: int) -> Image.Image:
    """Rows of pictures and lines of text, as a shop's page has them."""
    page = Image.new("RGB", (width, height), "#f5f5f5")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=30)
    for top in range(40, height - 200, 300):
        photo = Image.fromarray(noise.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((240, 240))
        page.paste(photo, (30, top))
        for line in range(4):
            draw.text((300, top + 55 * line), f"Order {noise.integers(10**9)} line {line}", fill="#222", font=font)
    return page


def scroll(width: int, height: int, frames: int) -> Iterator[np.ndarray]:
    page = np.asarray(draw_screen(width, 3 * height))
    for number in range(frames):
        top = 2 * height * number // frames
        yield page[top : top + height]


def pan(width: int, height: int, frames: int) -> Iterator[np.ndarray]:
    coarse = Image.fromarray(noise.integers(0, 255, (18, 32, 3), dtype=np.uint8))
    scene = np.asarray(coarse.resize((2 * width, 2 * height)), np.int16)
    grains = noise.integers(-6, 6, (8, height, width, 1), dtype=np.int16)
    for number in range(frames):
        left, top, grain = width * number // frames, height * number // frames // 2, grains[number % 8]
        yield np.clip(scene[top : top + height, left : left + width] + grain, 0, 255).astype(np.uint8)


def record(path: Path, pictures: Iterator[np.ndarray]) -> Path:
    with av.open(path, "w") as file:
        stream: Any = None
        for pixels in pictures:
            if stream is None:
                stream = file.add_stream("libx264", rate=30, options={"preset": "veryfast"})
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels))))
        file.mux(stream.encode())
    return path


@contextmanager
def start_peer() -> Iterator[Callable[[Path], dict[str, Any]]]:
    command = [str(python_of("qwen-video")), str(ROOT / "tests/benchmarks/clients/qwen_videos.py")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env={**os.environ, **QUIET}, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(BOUNDS) + "\n")

        def ask(path: Path) -> dict[str, Any]:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def read_pixels(path: Path, cache: Path) -> tuple[float, VideoRef]:
    """Return the CPU seconds until all frames of a recording are decoded, and the frames."""
    began = time.process_time()
    with check_videos([path], SETTINGS, cache / "frames", cache / "known.sqlite") as recordings:
        video = recordings.check(path)
    for frame in video.frames:
        np.asarray(Image.open(frame.path))
    return time.process_time() - began, video


def main() -> None:
    with tempfile.TemporaryDirectory() as name, start_peer() as ask:
        folder = Path(name)
        files = {
            "screen, 1080×1920, 4 s": record(folder / "screen.mp4", scroll(1080, 1920, 120)),
            "camera, 1280×720, 5 s": record(folder / "camera.mp4", pan(1280, 720, 150)),
            "camera, 640×360, 40 s": record(folder / "long.mp4", pan(640, 360, 1200)),
        }
        ratios: list[tuple[float, float]] = []
        for path in files.values():
            ask(path)  # imports and first allocations
            read_pixels(path, folder / "warm")
        for what, path in files.items():
            rounds: list[tuple[float, float, float]] = []
            for number in range(ROUNDS):
                theirs = ask(path)
                first, video = read_pixels(path, folder / f"{path.stem}-{number}")
                second, _ = read_pixels(path, folder / f"{path.stem}-{number}")
                assert len(video.frames) == theirs["shape"][0], "another number of frames"
                rounds.append((theirs["cpu"], first, second))
            peer, first, second = (median(column) for column in zip(*rounds, strict=True))
            ratios.append((first / peer, second / peer))
            stored = sum(Path(frame.path).stat().st_size for frame in video.frames)
            size = f"{video.frames[0].width}×{video.frames[0].height}"
            print(f"{what}: {len(video.frames)} frames of {size}, {stored / 1e6:.1f} MB stored; CPU seconds:")
            wide = f"{theirs['shape'][3]}×{theirs['shape'][2]}"
            print(f"  fetch_video {peer:.2f} ({wide}), first {first:.2f}, second {second:.2f}")
        print(verdict("first use, worst file", max(first for first, _ in ratios), FIRST, at_most=True))
        print(verdict("second use, worst file", max(second for _, second in ratios), SECOND, at_most=True))


if __name__ == "__main__":
    main()
