"""Choose the frames by which recordings are compared with others and read for text.

Text stays on a screen for seconds, and each frame costs a second of OCR: so four frames stand for a recording here.
"""

from collections.abc import Iterable, Mapping

from tasks.items.video_frames import spread_evenly
from tasks.media import ImageRef, VideoRef
from tasks.records import Sample

_COUNT = 4


def choose_key_frames(video: VideoRef) -> list[ImageRef]:
    """Return four frames, evenly over the recording; some of them several times if it has fewer."""
    return [video.frames[place] for place in spread_evenly(len(video.frames), _COUNT)]


def list_pictures(sample: Sample) -> tuple[ImageRef, ...]:
    """Return an item's images and the key frames of its recordings, in the order of its parts."""
    pictures: list[ImageRef] = []
    for part in sample.parts:
        if part.type == "image":
            pictures.append(part.image)
        elif part.type == "video":
            pictures += choose_key_frames(part.video)
    return tuple(pictures)


def join_frame_texts(samples: Iterable[Sample], texts: Mapping[str, str]) -> dict[str, str]:
    """Map the digest of each recording to the text on its key frames, in which each different line occurs once.

    `texts` maps the digests of frames to the text on them.
    """
    joined: dict[str, str] = {}
    for video in {video.sha256: video for sample in samples for video in sample.videos}.values():
        lines = [line for frame in choose_key_frames(video) for line in texts.get(frame.sha256, "").splitlines()]
        joined[video.sha256] = "\n".join(dict.fromkeys(lines))
    return joined
