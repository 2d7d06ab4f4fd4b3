"""Recordings for tests: frames that are drawn, or only described."""

import hashlib
import random
from pathlib import Path

from PIL import Image, ImageDraw

from tasks.media import ImageRef, VideoRef


def describe_video(
    frames: int, width: int = 112, height: int = 168, *, seconds: float = 4.0, times: tuple[float, ...] = ()
) -> VideoRef:
    """Return a recording whose frames have no files."""
    each = tuple(ImageRef(path=f"/frames/{i}.png", sha256=f"f{i}", width=width, height=height) for i in range(frames))
    spread = times or tuple(i * seconds / frames for i in range(frames))
    return VideoRef(path="/clip.mp4", sha256="clip", frames=each, times=spread, seconds=seconds)


def draw_video(
    folder: Path, name: str, frames: int = 8, width: int = 112, height: int = 168, *, seconds: float = 4.0
) -> VideoRef:
    """Draw a button that moves over a screen; its colours and its way follow from the name."""
    rng = random.Random(name)
    ground, button = [tuple(rng.randrange(256) for _ in range(3)) for _ in range(2)]
    steps = [rng.uniform(-0.1, 0.1) for _ in range(2)]
    refs: list[ImageRef] = []
    for number in range(frames):
        screen = Image.new("RGB", (width, height), ground)
        left, top = [(0.5 + step * number) % 0.8 for step in steps]
        box = (left * width, top * height, (left + 0.2) * width, (top + 0.2) * height)
        ImageDraw.Draw(screen).rectangle(box, fill=button)
        file = folder / f"{name}-{number}.png"
        screen.save(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        refs.append(ImageRef(path=str(file), sha256=digest, width=width, height=height))
    times = tuple(number * seconds / frames for number in range(frames))
    digest = hashlib.sha256("".join(r.sha256 for r in refs).encode()).hexdigest()
    return VideoRef(path=str(folder / f"{name}.mp4"), sha256=digest, frames=tuple(refs), times=times, seconds=seconds)
