"""How a recording's frames are shown: how large, and at which times. Training, asking and export show them alike."""

from collections.abc import Sequence
from typing import Any

from tasks.media import VideoRef

LEAST_FRAMES = 4
"""A recording is never shortened to fewer frames, as in qwen_vl_utils."""
MOST_IMAGES = 8
"""The frames of a recording have together at most as many pixels as this many of the largest images. As two frames
share their tokens, that is at most the tokens of four images, 5,120 by default."""
_TICKS = 1000.0


def compute_frame_pixels(videos: Sequence[VideoRef], *, min_pixels: int, max_pixels: int) -> int | None:
    """Return the maximum area of a frame of `videos`, the same for all; None if there are no videos.

    It depends on the longest video's number of frames, before any of them are left out: so leaving some out saves
    tokens, and does not enlarge the others.
    """
    if not videos:
        return None
    most = max(len(video.frames) for video in videos)
    return max(min_pixels, min(max_pixels, MOST_IMAGES * max_pixels // most))


def describe_times(videos: Sequence[VideoRef]) -> list[dict[str, Any]]:
    """Return what models are told of the frames of each video, in the terms of transformers' `VideoMetadata`.

    The frames of a single video are numbered by their milliseconds, so that Qwen3-VL is told their own times. Several
    videos are told one frame rate, their mean, because vLLM takes one per request.
    """
    if len(videos) == 1:
        video = videos[0]
        total = max(len(video.frames), round(_TICKS * len(video.frames) / video.fps))
        return [_describe(_TICKS, [round(_TICKS * time) for time in video.times], total)]
    steps = sum(len(video.frames) - 1 for video in videos)
    seconds = sum(video.times[-1] - video.times[0] for video in videos)
    fps = steps / seconds if seconds > 0 else 1.0
    return [_describe(fps, list(range(len(video.frames))), len(video.frames)) for video in videos]


def list_pair_times(described: dict[str, Any]) -> list[float]:
    """Return the time of each pair of frames in seconds, the mean of both; `described` is from `describe_times`."""
    times = [number / described["fps"] for number in described["frames_indices"]]
    return [(first + second) / 2 for first, second in zip(times[::2], times[1::2], strict=True)]


def keep_frames(video: VideoRef, most: int) -> VideoRef:
    """Return the video with `most` of its frames, an even number, evenly spread, the first and the last among them."""
    count = len(video.frames)
    if count <= most:
        return video
    kept = [round(place * (count - 1) / (most - 1)) for place in range(most)]
    fewer = {"frames": tuple(video.frames[i] for i in kept), "times": tuple(video.times[i] for i in kept)}
    return video.model_copy(update=fewer)


def _describe(fps: float, numbers: list[int], total: int) -> dict[str, Any]:
    """Return the description of frames that have these `numbers` among the `total` frames of a recording."""
    return {"fps": fps, "frames_indices": numbers, "total_num_frames": total, "duration": total / fps}
