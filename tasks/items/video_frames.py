"""Decode evenly spaced frames of a recording, chosen as in qwen_vl_utils.

PyAV rather than decord (which needs an old FFmpeg and has no wheels for Arm) or torchcodec (which needs FFmpeg's
libraries and torch). Only the parts of the file that lead to a wanted frame are decoded, each with one thread, because
several recordings are read at a time. Frames are shrunk before they are converted to RGB.

They are stored as JPEG of quality 95 in full colour resolution. Measured for 16 frames of a phone's screen, 475×844:
0.06 s and 2.2 MB, against 0.3 s and 1 MB as WebP of quality 90 and 0.3 s and 4.5 MB as PNG; decoding them took 1 s.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from tasks.items.images import MAX_PIXELS, check_sides
from tasks.items.pixels import encode_picture
from tasks.items.refusals import Reason, Unusable
from tasks.items.settings import VideoSettings

_FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"
"""FFmpeg's names of the formats that are read: others, such as playlists, name further files or addresses."""
_MIN_FRAMES = 4
"""Frames of a short recording, as in qwen_vl_utils (FPS_MIN_FRAMES)."""
_TICKS = 1_000_000
"""FFmpeg's units per second in a container's length and start."""
_LOST = 0.02
"""Share of a recording that may be missing at its end before it counts as truncated, or a quarter of a second."""


class Frames(NamedTuple):
    """The chosen frames of a recording, encoded as image files of one size, with their times in seconds."""

    pictures: list[bytes]
    suffix: str
    width: int
    height: int
    times: list[float]
    seconds: float


def take_frames(path: Path, settings: VideoSettings) -> Frames:
    """Return the frames of a recording, upright and with square pixels; raises Unusable if it cannot be used.

    A recording of one frame has this frame twice. If the frame rate varies, frames are still chosen by their numbers
    and not by their times, as qwen_vl_utils does; `times` has the true ones.
    """
    try:
        with _open(path) as file:
            timeline = _read_timeline(path, file, _find_stream(path, file))
        check_length(path, timeline.seconds, settings.max_seconds)
        chosen = choose_frames(len(timeline.times), timeline.seconds, settings)
        most = settings.max_pixels // len(chosen)
        decoded = _decode_by_time(path, timeline, chosen, most) or _decode_by_number(path, chosen, most)
    except (FFmpegError, OSError) as error:
        # FFmpeg opened the file, so the fault is further inside.
        raise Unusable(Reason.VIDEO_TRUNCATED, f"{path}: cannot be decoded to its end: {error.strerror}") from error
    pictures = [encode_picture(picture, ".jpg") for picture in decoded]
    start = timeline.times[0]
    times = [float((timeline.times[number] - start) * timeline.unit) for number in chosen]
    width, height = decoded[0].size
    return Frames(pictures, ".jpg", width, height, times, timeline.seconds)


def check_length(path: Path, seconds: float, most: float) -> None:
    """Raise Unusable for a recording of more than `most` seconds."""
    if seconds > most:
        detail = f"{path}: {seconds:.0f} s long; at most {most:g} s are allowed"
        raise Unusable(Reason.VIDEO_TOO_LONG, f"{detail}: cut it, or raise `video.max_seconds`")


# --- which frames --------------------------------------------------------------------------------------------


def choose_frames(total: int, seconds: float, settings: VideoSettings) -> list[int]:
    """Return the numbers of the frames that are taken of `total`: an even number, with the first and the last."""
    count = min(max(seconds * settings.fps, _MIN_FRAMES), settings.max_frames, total)
    return spread_evenly(total, max(2, math.floor(count / 2) * 2))


def spread_evenly(total: int, count: int) -> list[int]:
    """Return `count` numbers from 0 to `total` - 1, the first and the last among them."""
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]


def shrink_sides(width: float, height: float, max_pixels: int) -> tuple[int, int]:
    """Return the sides of a picture that is shrunk to at most `max_pixels` pixels, and never enlarged."""
    scale = min(1.0, math.sqrt(max_pixels / (width * height)))
    return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))


# --- the file ------------------------------------------------------------------------------------------------


def _open(path: Path) -> InputContainer:
    try:
        return av.open(str(path), options={"format_whitelist": _FORMATS})
    except FileNotFoundError:
        raise
    except (FFmpegError, OSError) as error:
        if _begins_like_video(path):
            raise Unusable(Reason.VIDEO_TRUNCATED, f"{path}: ends within its header: {error.strerror}") from error
        detail = f"{path}: is not a video in one of the formats mp4, mov, mkv, webm, avi, ts, mpg, flv, wmv, ogv, gif"
        raise Unusable(Reason.NOT_A_VIDEO, detail) from error


def _begins_like_video(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] in (b"ftyp", b"moov", b"mdat") or start.startswith((b"\x1aE\xdf\xa3", b"FLV", b"GIF8")) or (
        start.startswith(b"RIFF") and start[8:] == b"AVI "
    )  # fmt: skip


def _find_stream(path: Path, file: InputContainer) -> VideoStream:
    """Return the first stream of moving pictures, skipping cover images of music."""
    for stream in file.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            check_sides(path, stream.width, stream.height, MAX_PIXELS)
            return stream
    sound = "contains only sound" if file.streams.audio else "contains no video stream"
    raise Unusable(Reason.VIDEO_WITHOUT_FRAMES, f"{path}: {sound}")


class _Timeline(NamedTuple):
    """When the frames of a stream are shown, in units of the stream."""

    times: list[int]
    starts: list[int]
    """Those of the frames at which decoding can start."""
    unit: Fraction
    seconds: float
    is_searchable: bool


def _read_timeline(path: Path, file: InputContainer, stream: VideoStream) -> _Timeline:
    """Return when frames are shown, without decoding any; raises Unusable if the file ends too early."""
    has_count = "mov" in file.format.name
    # The length of other formats is that of their longest stream.
    packets = [packet for packet in file.demux(*([stream] if has_count else file.streams)) if packet.size]
    # AVI has no times of display: its packets only say when they are decoded.
    is_searchable = file.format.name != "avi"
    shown = sorted(
        (time, packet.is_keyframe, packet.duration or 0)
        for packet in packets
        if packet.stream is stream and not packet.is_discard
        if (time := packet.pts if is_searchable and packet.pts is not None else packet.dts) is not None
    )
    if not shown:
        raise Unusable(Reason.VIDEO_WITHOUT_FRAMES, f"{path}: contains no frames")
    times = [time for time, *_ in shown]
    unit = stream.time_base or Fraction(1, av.time_base)
    if has_count:
        is_cut = len(times) < stream.frames * (1 - _LOST)
    else:
        ends = [(p.pts or p.dts or 0) + (p.duration or 0) for p in packets]
        bases = [p.time_base or unit for p in packets]
        end = max(float(end * base) for end, base in zip(ends, bases, strict=True))
        announced = (file.duration or 0) / _TICKS
        is_cut = announced - end > max(_LOST * announced, 0.25)
    if is_cut:
        raise Unusable(
            Reason.VIDEO_TRUNCATED, f"{path}: ends after {len(times)} frames, before the end that it announces"
        )
    seconds = measure_seconds(times, shown[-1][2], unit, stream.average_rate)
    return _Timeline(times, [time for time, is_start, _ in shown if is_start], unit, seconds, is_searchable)


def measure_seconds(times: Sequence[int], last: int, unit: Fraction, rate: Fraction | None) -> float:
    """Return how long a recording is: by its frame rate if this agrees with its frames' `times`, else by these.

    `last` is how long its last frame is shown; 0 if that is not known.
    """
    span = times[-1] - times[0]
    by_times = float((span + (last or span / max(1, len(times) - 1))) * unit)
    by_rate = float(len(times) / rate) if rate else 0.0
    return by_rate if not span or abs(by_rate - by_times) <= 0.01 * by_times else by_times


# --- decoding ------------------------------------------------------------------------------------------------


def _decode_by_time(path: Path, timeline: _Timeline, chosen: Sequence[int], most: int) -> list[Image.Image] | None:
    """Return the frames with the numbers `chosen`, found by their times; None if the file cannot be searched so."""
    decoded: list[Image.Image] = []
    with _open(path) as file:
        stream = _find_stream(path, file)
        stream.thread_type = "NONE"
        upcoming = file.decode(stream)
        frame = next(upcoming, None) if timeline.is_searchable else None
        for time in (timeline.times[number] for number in chosen):
            start = timeline.starts[max(0, bisect_right(timeline.starts, time) - 1)] if timeline.starts else None
            if frame is not None and frame.pts is not None and start is not None and start > frame.pts:
                file.seek(start, stream=stream)
                upcoming = file.decode(stream)
                frame = next(upcoming, None)
            while frame is not None and frame.pts is not None and frame.pts < time:
                frame = next(upcoming, None)
            if frame is None or frame.pts != time or frame.is_corrupt:
                return None
            decoded.append(_render(frame, stream, most))
    return decoded


def _decode_by_number(path: Path, chosen: Sequence[int], most: int) -> list[Image.Image]:
    """Return the frames with the numbers `chosen`, which ascend, by decoding all; raises Unusable if one is damaged."""
    decoded: list[Image.Image] = []
    with _open(path) as file:
        stream = _find_stream(path, file)
        stream.thread_type = "NONE"
        for number, frame in enumerate(file.decode(stream)):
            for _ in range(chosen.count(number)):
                if frame.is_corrupt:
                    raise Unusable(Reason.VIDEO_TRUNCATED, f"{path}: frame {number + 1} is damaged")
                decoded.append(_render(frame, stream, most))
    if len(decoded) < len(chosen):
        raise Unusable(Reason.VIDEO_TRUNCATED, f"{path}: frame {chosen[len(decoded)] + 1} cannot be decoded")
    return decoded


def _render(frame: VideoFrame, stream: VideoStream, most: int) -> Image.Image:
    """Return a frame in RGB, upright, with square pixels, of which there are at most `most`."""
    shape = float(stream.codec_context.sample_aspect_ratio or 1)
    width, height = shrink_sides(frame.width * shape, frame.height, most)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 turns
    return Image.fromarray(np.ascontiguousarray(np.rot90(pixels, quarters)))
