from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageDraw

from tasks.items.duplicates import find_grown_dialogues, find_near_duplicates
from tasks.items.image_hashes import ImageHashes
from tasks.items.key_frames import choose_key_frames, join_frame_texts, list_pictures
from tasks.items.settings import VideoSettings
from tasks.items.videos import check_videos
from tasks.media import ImageRef, Part, TextPart, VideoPart, VideoRef
from tasks.records import Sample, Split
from tests.recordings import draw_recording


def make_video(path: Path, seed: int, codec: str = "libx264") -> VideoRef:
    """Return a recording in which a page of boxes, different for each seed, is scrolled."""
    boxes = Random(seed)
    page = Image.new("RGB", (112, 336), "white")
    for _ in range(60):
        left, top = boxes.randrange(100), boxes.randrange(320)
        corners = (left, top, left + boxes.randrange(4, 30), top + boxes.randrange(4, 12))
        ImageDraw.Draw(page).rectangle(corners, fill=(boxes.randrange(200), 90, boxes.randrange(200)))
    draw_recording(path, codec=codec, draw=lambda number: page.crop((0, 8 * number, 112, 8 * number + 168)))
    with check_videos([path], VideoSettings(), path.parent / "frames", None) as recordings:
        return recordings.check(path)


def make_sample(identity: str, *parts: Part) -> Sample:
    return Sample(id=identity, task="", parts=parts, labels=("a", "b"), split=Split.LABELLED, source="m")


def describe_video(count: int, name: str = "v") -> VideoRef:
    frames = tuple(ImageRef(path=f"{n}.jpg", sha256=f"{name}{n}", width=9, height=9) for n in range(count))
    return VideoRef(path="a.mp4", sha256=name, frames=frames, times=tuple(map(float, range(count))), seconds=count)


@pytest.mark.parametrize(("count", "chosen"), [(2, [0, 0, 1, 1]), (4, [0, 1, 2, 3]), (32, [0, 10, 21, 31])])
def test_four_frames_stand_for_a_recording(count: int, chosen: list[int]) -> None:
    video = describe_video(count)
    assert choose_key_frames(video) == [video.frames[place] for place in chosen]
    assert list_pictures(make_sample("a", TextPart(text="t"), VideoPart(video=video))) == tuple(
        choose_key_frames(video)
    )


def test_the_text_of_a_recording_has_each_line_once() -> None:
    video = describe_video(4)
    texts = {"v0": "Pay\n12:00", "v1": "Pay\n12:01", "v2": "", "v3": "12:00\nDone"}
    assert join_frame_texts([make_sample("a", VideoPart(video=video))], texts) == {"v": "Pay\n12:00\n12:01\nDone"}


def test_a_recording_that_was_saved_again_is_a_near_duplicate(tmp_path: Path) -> None:
    one = make_video(tmp_path / "a.mp4", 1)
    again = make_video(tmp_path / "b.webm", 1, "libvpx-vp9")
    other = make_video(tmp_path / "c.mp4", 2)
    samples = [make_sample(name, VideoPart(video=v)) for name, v in zip("abc", (one, again, other), strict=True)]
    assert one.sha256 != again.sha256
    assert find_near_duplicates(samples, ImageHashes()) == [(0, 1)]


def test_a_dialogue_grows_only_if_its_recordings_are_the_same() -> None:
    text = TextPart(text="a text that is long enough to be compared")
    more = TextPart(text="\nand more")
    samples = [
        make_sample("a", text, VideoPart(video=describe_video(2, "x"))),
        make_sample("b", text, VideoPart(video=describe_video(2, "x")), more),
        make_sample("c", text, VideoPart(video=describe_video(2, "y")), more),
    ]
    assert find_grown_dialogues(samples) == [(0, 1)]
