"""Collect what trainers can only be told once for all recordings of an export, such as the frames per second."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks.dataset.export.trainer_files import Plain
from tasks.media import VideoRef
from tasks.records import Sample, Subset

_ALMOST = 0.05
"""Relative difference up to which two rates are the same: 0.1 seconds in a recording of 2 seconds."""


@dataclass
class Recordings:
    """Facts about the recordings in the rows of one format."""

    subsets: set[Subset] = field(default_factory=set[Subset])
    """Those with a recording."""
    most_frames: int = 0
    """The largest number of frames that one recording has."""
    rates: Counter[float] = field(default_factory=Counter[float])
    """Maps frames per second to the number of recordings."""

    def add(self, videos: Iterable[VideoRef], subset: Subset) -> None:
        """Take in the recordings of a row that was written."""
        for video in videos:
            self.subsets.add(subset)
            self.most_frames = max(self.most_frames, len(video.frames))
            self.rates[compute_rate(video)] += 1

    @property
    def usual_rate(self) -> float | None:
        """Return the frames per second of most recordings; None if there are no recordings."""
        return max(self.rates, key=lambda rate: (self.rates[rate], rate), default=None)

    def count_unusual(self) -> int:
        """Return how many recordings have clearly more or fewer frames per second than most."""
        usual = self.usual_rate or 1.0
        return sum(count for rate, count in self.rates.items() if abs(rate - usual) > _ALMOST * usual)


def collect_recordings(items: Iterable[Sample]) -> Recordings:
    """Return the facts about the recordings of items that are all trained on."""
    found = Recordings()
    for item in items:
        found.add(item.videos, Subset.TRAIN)
    return found


def compute_rate(video: VideoRef) -> float:
    """Return a recording's frames per second, rounded as it is written into trainers' files."""
    return round(video.fps, 3)


def describe_recordings(min_pixels: int, max_pixels: int, recordings: Recordings) -> dict[str, Plain]:
    """Return the words about recordings for LLaMA-Factory's templates; without recordings they have no value."""
    rate = recordings.usual_rate
    values: tuple[Plain, ...] = (rate, recordings.most_frames, min_pixels, max_pixels)
    names = ("video_fps", "video_maxlen", "video_min_pixels", "video_max_pixels")
    return {name: None if rate is None else value for name, value in zip(names, values, strict=True)}


def make_swift_environment(min_pixels: int, max_pixels: int, recordings: Recordings) -> dict[str, Plain]:
    """Return the environment variables by which ms-swift gets the bounds of areas and the frames per second."""
    images: dict[str, Plain] = {"MIN_PIXELS": min_pixels, "MAX_PIXELS": max_pixels}
    if recordings.usual_rate is None:
        return images
    videos = {"VIDEO_MIN_PIXELS": min_pixels, "VIDEO_MAX_PIXELS": max_pixels, "FPS": recordings.usual_rate}
    return images | videos
