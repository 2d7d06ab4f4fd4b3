"""Check each distinct recording once, and take the frames that stand for it.

A recording is a video file, or image files that are its frames. Image files must have one size. All of them are used up
to the maximum number of frames; of an odd number, the last is repeated, as qwen_vl_utils does.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
from PIL import Image

from tasks.items.frame_cache import FrameCache
from tasks.items.images import FORMATS, check_files, count_threads
from tasks.items.known_files import KnownFiles, Seen, digest_code
from tasks.items.pixels import choose_suffix, encode_picture, render_pixels
from tasks.items.refusals import Reason, Unusable
from tasks.items.settings import VideoSettings
from tasks.items.video_frames import Frames, check_length, shrink_sides, spread_evenly, take_frames
from tasks.media import ImageRef, VideoRef, digest_of
from tasks.records import Sample

LISTED_FPS = 2.0
"""Frames per second of image files whose item does not say it: qwen_vl_utils' default of `sample_fps`."""
_RECIPE = 1
"""Part of the names of stored frames; raise it when the same settings give other frames."""


@dataclass(frozen=True)
class Recordings:
    """The recordings of a set, whose files have been or are being checked."""

    check: Callable[[Path], VideoRef]
    """Returns the frames of a video file, or raises Unusable."""
    _settings: VideoSettings
    _cache: FrameCache
    _pool: ThreadPoolExecutor

    def join(self, images: Sequence[ImageRef], fps: float) -> VideoRef:
        """Return the frames of a recording that is given as image files; raises Unusable."""
        first = images[0]
        path, sha256 = Path(first.path), digest_of([fps, *(image.sha256 for image in images)])
        for image in images:
            if (image.width, image.height) != (first.width, first.height):
                sizes = f"{image.width}×{image.height} pixels, but {path.name} has {first.width}×{first.height}"
                raise Unusable(Reason.VIDEO_SIZES_DIFFER, f"{image.path}: {sizes}; give all frames one size")
        check_length(path, len(images) / fps, self._settings.max_seconds)
        return self._cache.find(sha256, path) or self._cache.write(sha256, path, self._shrink(images, fps))

    def _shrink(self, images: Sequence[ImageRef], fps: float) -> Frames:
        most = self._settings.max_frames // 2 * 2
        total = len(images)
        chosen = spread_evenly(total, most) if total > most else list(range(total))
        times = [number / fps for number in chosen]
        if total % 2 and total <= most:
            chosen.append(total - 1)
            times.append(total / fps)
        sides = shrink_sides(images[0].width, images[0].height, self._settings.max_pixels // len(chosen))
        with Image.open(images[0].path, formats=FORMATS) as image:
            suffix = choose_suffix(image)
        pictures = list(self._pool.map(lambda number: _encode(images[number], sides, suffix), chosen))
        return Frames(pictures, suffix, *sides, times, total / fps)


def _encode(image: ImageRef, sides: tuple[int, int], suffix: str) -> bytes:
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            picture = render_pixels(file)
    except Exception as error:  # decoders raise all kinds of errors; the file was whole when it was checked
        raise Unusable(Reason.IMAGE_TRUNCATED, f"{image.path}: cannot be decoded to its end: {error}") from error
    return encode_picture(picture if picture.size == sides else picture.resize(sides, Image.Resampling.BICUBIC), suffix)


@contextmanager
def check_videos(
    paths: Iterable[Path], settings: VideoSettings, frames: Path, known: Path | None
) -> Generator[Recordings]:
    """Check all video files at `paths` in threads, and store the frames of each in the folder `frames`.

    If `known` is given, results are stored in that file, and files that have not changed since are not opened again.
    """
    cache = FrameCache(frames, [_RECIPE, settings.fps, settings.max_frames, settings.max_pixels])
    recipe = f"{settings.model_dump_json()}/{av.__version__}/{digest_code('videos', 'video_frames')}"
    store = None if known is None else KnownFiles(known, recipe, lambda path, fields: cache.find(fields[0], path))
    check = partial(_check_video, settings=settings, cache=cache)
    with check_files(paths, check, store) as found, ThreadPoolExecutor(count_threads()) as pool:
        yield Recordings(found, settings, cache, pool)


def _check_video(path: Path, settings: VideoSettings, cache: FrameCache) -> VideoRef:
    """Hash one file, and decode it unless its frames are stored; raises Unusable with the reason."""
    seen = Seen.of(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if file.tell() == 0:
                raise Unusable(Reason.VIDEO_EMPTY, f"{path}: 0 bytes")
    except OSError as error:
        raise Unusable(Reason.VIDEO_MISSING, f"{path}: cannot be read: {error.strerror or error}") from error
    video = cache.find(digest, path)
    if video is None:
        frames = take_frames(path, settings)
        if Seen.of(path).state != seen.state:  # otherwise other frames would be stored under this digest
            raise Unusable(Reason.VIDEO_TRUNCATED, f"{path}: has changed while it was read; start the run again")
        video = cache.write(digest, path, frames)
    check_length(path, video.seconds, settings.max_seconds)
    return video


def have_frames(samples: Iterable[Sample]) -> bool:
    """Return whether all frames of the recordings of `samples` are still stored."""
    return all(os.path.exists(frame.path) for sample in samples for video in sample.videos for frame in video.frames)
