"""How recordings are asked about: their place in prompts and keys, the times that are told, the size of frames."""

from typing import Any

import pytest

from tasks.media import TextPart, VideoPart, VideoRef
from tasks.prompts.recordings import compute_frame_pixels, describe_times, keep_frames, list_pair_times
from tasks.prompts.turns import make_user_content, make_user_text
from tasks.records import Request, Sample, Sampling
from tests.recordings import describe_video
from tests.tasks.making import image, parts, prompter, sample


def show(*videos: VideoRef, **fields: Any) -> Sample:
    content = [part for video in videos for part in (TextPart(text="看"), VideoPart(video=video))]
    return sample("s").model_copy(update={"parts": (*content, *parts("<video> <|video_pad|>", image())), **fields})


def ask(*videos: VideoRef) -> Request:
    return prompter().classify(show(*videos), Sampling())


def test_training_and_asking_place_recordings_alike() -> None:
    video = describe_video(4)
    content = make_user_content(ask(video))
    assert [e["type"] for e in content] == ["text", "text", "video", "text", "image", "text"]
    assert content[2] == {"type": "video", "video": "/clip.mp4"}
    as_images = make_user_content(ask(video), frames_as_images=True)
    assert [e["image"] for e in as_images if e["type"] == "image"][:4] == [frame.path for frame in video.frames]
    question = prompter().training_turns(show(video), "申请退款")[-2].content
    assert question == make_user_text(prompter().classify(show(video), Sampling(), with_reason=False))
    assert "看<video>＜video＞ ＜|video_pad|＞<image>" in question


@pytest.mark.parametrize("change", ["frames", "times"])
def test_the_key_changes_with_frames_and_times(change: str) -> None:
    video = describe_video(4)
    other = video.model_copy(update={change: getattr(describe_video(4, seconds=9.0), change)[::-1]})
    assert ask(video).key != ask(other).key
    assert ask(video).key == ask(video.model_copy(update={"path": "/moved.mp4"})).key
    assert ask(video).key != ask(video, video).key


def test_a_single_recording_is_told_its_own_times() -> None:
    times = (0.0, 0.5, 2.0, 2.25)
    (described,) = describe_times([describe_video(4, times=times)])
    assert described["frames_indices"] == [0, 500, 2000, 2250]
    assert list_pair_times(described) == [0.25, 2.125]
    # three steps in 2.25 seconds, from which transformers computes 2.25 / 3 seconds per frame
    assert len(times) / described["total_num_frames"] * described["fps"] == pytest.approx(3 / 2.25)


def test_frames_of_one_moment_have_a_rate() -> None:
    (described,) = describe_times([describe_video(2, times=(0.0, 0.0))])
    assert (described["frames_indices"], described["total_num_frames"]) == ([0, 0], 2000)


def test_several_recordings_share_a_rate() -> None:
    first, second = describe_times([describe_video(4, seconds=4.0), describe_video(2, seconds=6.0)])
    assert first["fps"] == second["fps"] == 4 / 6
    assert (first["frames_indices"], second["frames_indices"]) == ([0, 1, 2, 3], [0, 1])


@pytest.mark.parametrize(("frames", "expected"), [(2, 1000), (8, 1000), (16, 500), (768, 100)])
def test_long_recordings_have_small_frames(frames: int, expected: int) -> None:
    assert compute_frame_pixels([describe_video(frames)], min_pixels=100, max_pixels=1000) == expected
    assert compute_frame_pixels([], min_pixels=100, max_pixels=1000) is None


@pytest.mark.parametrize("most", [2, 4, 10, 16, 30])
def test_frames_that_are_kept_are_spread_evenly(most: int) -> None:
    video = describe_video(16, seconds=16.0)
    kept = keep_frames(video, most)
    count = min(most, 16)
    assert (len(kept.frames), kept.times[0], kept.times[-1]) == (count, 0.0, 15.0)
    steps = [later - earlier for earlier, later in zip(kept.times, kept.times[1:], strict=False)]
    assert max(steps) - min(steps) <= 1.0
    assert [frame.sha256 for frame in kept.frames] == [f"f{int(time)}" for time in kept.times]
    VideoRef.model_validate(kept.model_dump())
