"""Recordings for tests: files whose frames show their own numbers, and frames that are drawn or only described."""

import hashlib
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from tasks.media import ImageRef, VideoRef

_BITS = 8
_TICKS = 1000  # per second: the resolution of frames' times where the frame rate varies


def draw_numbered_frame(number: int, size: tuple[int, int] = (112, 168)) -> Image.Image:
    """Return a picture whose upper half shows `number` as eight black or white bars, its highest bit on the left.

    The lower half is grey, so a picture that is not upright shows another number or none.
    """
    width, height = size
    pixels = np.full((height, width), 128, np.uint8)
    for bit in range(_BITS):
        bar = slice(bit * width // _BITS, (bit + 1) * width // _BITS)
        pixels[: height // 2, bar] = 255 if number >> (_BITS - 1 - bit) & 1 else 0
    return Image.fromarray(pixels).convert("RGB")


def read_frame_number(picture: Image.Image) -> int | None:
    """Return the number that a picture of any size shows; None if it shows none, such as when it is not upright."""
    pixels = np.asarray(picture.convert("L"), int)
    height, width = pixels.shape
    row = pixels[height // 4]
    bars = [row[int((bit + 0.5) * width / _BITS)] for bit in range(_BITS)]
    is_upright = all(abs(bar - 128) > 64 for bar in bars) and abs(pixels[3 * height // 4, width // 2] - 128) < 32
    return sum(int(bar > 128) << (_BITS - 1 - bit) for bit, bar in enumerate(bars)) if is_upright else None


def draw_recording(
    path: Path,
    frames: int = 20,
    fps: float = 10,
    *,
    size: tuple[int, int] = (112, 168),
    rotated: int = 0,
    times: Sequence[float] = (),
    sound: bool = False,
    codec: str = "libx264",
    draw: Callable[[int], Image.Image] | None = None,
) -> Path:
    """Write a recording of `frames` pictures and return its path, whose suffix decides the format.

    `draw` returns the picture of a number, by default one that shows it. `rotated` is the clockwise angle by which
    players turn the stored pictures, as phones note it: these are stored turned back, so that players show them
    upright. `times` are seconds from the start, for a recording whose frame rate varies; with `sound` it also beeps.
    """
    shown = draw or (lambda number: draw_numbered_frame(number, size))
    with av.open(path, "w") as file:
        stored = [shown(number).rotate(rotated, expand=True) for number in range(frames)]
        rate = Fraction(fps).limit_denominator(1000)
        unit = Fraction(1, _TICKS) if times else 1 / rate
        video = file.add_stream(codec, rate=rate)
        video.width, video.height = stored[0].size if stored else size
        video.pix_fmt = "yuv420p"
        video.time_base = unit
        video.codec_context.time_base = unit
        if rotated:
            video.set_display_rotation(-rotated)
        audio = file.add_stream("aac", rate=8000, layout="mono") if sound else None
        file.start_encoding()  # a recording without frames has a header too
        for number, picture in enumerate(stored):
            frame = av.VideoFrame.from_image(picture)
            frame.pts = round(times[number] * _TICKS) if times else number
            frame.time_base = unit
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if audio is not None:
            _beep(file, audio, (times[-1] if times else frames / fps))
    return path


def draw_sound(path: Path, seconds: float = 1) -> Path:
    """Write a recording without pictures and return its path."""
    with av.open(path, "w") as file:
        _beep(file, file.add_stream("aac", rate=8000, layout="mono"), seconds)
    return path


def _beep(file: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    wave = np.sin(np.arange(int(8000 * seconds)) / 4).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate = 8000
    frame.pts = 0
    file.mux(stream.encode(frame))
    file.mux(stream.encode())


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
