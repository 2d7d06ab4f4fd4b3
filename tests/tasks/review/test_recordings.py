"""Recordings on the review page and in Label Studio: played where a browser can, and as a strip of frames."""

import io
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from tasks.media import VideoRef
from tasks.records import ReviewCase
from tasks.review import recordings
from tasks.review.label_studio import write_tasks
from tasks.review.page import write_review_page
from tests.recordings import read_frame_number
from tests.tasks.making import draw_numbered_video, image, parts

LABELS = ("申请退款", "查询物流")


def case(*content: Any) -> ReviewCase:
    return ReviewCase(sample_id="a", parts=parts(*content), labels=LABELS, given=LABELS[0], candidate=None)


def write_elements(page: Path, *cases: ReviewCase, inline: bool = True) -> dict[str, Any]:
    write_review_page(cases, page, title="T", inline=inline)
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script', page.read_text("utf-8"), re.S)
    return {name: orjson.loads(text) for name, text in found}


def read_numbers(urls: list[str]) -> list[int | None]:
    return [read_frame_number(Image.open(io.BytesIO(b64decode(url.partition(",")[2])))) for url in urls]


@pytest.fixture
def clip(tmp_path: Path) -> VideoRef:
    """20 frames of a recording whose file exists."""
    video = draw_numbered_video(tmp_path / "in", frames=20)
    Path(video.path).write_bytes(b"film")
    return video


def test_a_recording_is_a_strip_of_some_frames_in_its_place(clip: VideoRef, tmp_path: Path) -> None:
    found = write_elements(tmp_path / "p.html", case("看", clip, "和", clip))
    assert list(found) == ["queue", "video-0", "case-0"]
    assert [part.get("video") for part in found["case-0"]["parts"]] == [None, "video-0", None, "video-0"]
    shown = found["video-0"]
    assert (shown["count"], shown["seconds"], shown["width"], shown["height"]) == (20, 10.0, 112, 168)
    numbers = read_numbers([frame["url"] for frame in shown["frames"]])
    assert len(numbers) == 8 and (numbers[0], numbers[-1]) == (0, 19)
    assert [frame["time"] for frame in shown["frames"]] == [number / 2 for number in numbers if number is not None]


def test_a_page_that_contains_everything_contains_small_files(
    clip: VideoRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = write_elements(tmp_path / "p.html", case(clip))["video-0"]["url"]
    assert url == "data:video/mp4;base64,ZmlsbQ=="
    monkeypatch.setattr(recordings, "_MOST_BYTES", 3)
    assert write_elements(tmp_path / "p.html", case(clip))["video-0"]["url"] is None


def test_a_page_with_links_plays_the_file_beside_it_and_removes_those_of_others(clip: VideoRef, tmp_path: Path) -> None:
    page = tmp_path / "review" / "p.html"
    url = write_elements(page, case(clip), inline=False)["video-0"]["url"]
    assert (page.parent / url).read_bytes() == b"film"
    write_elements(page, case("文字"), inline=False)
    assert not (page.parent / url).exists() and Path(clip.path).exists()


def test_what_browsers_do_not_play_or_is_gone_has_only_the_strip(clip: VideoRef, tmp_path: Path) -> None:
    other = tmp_path / "film.avi"
    other.write_bytes(b"film")
    avi = clip.model_copy(update={"path": str(other), "sha256": "1"})
    frames = clip.model_copy(update={"path": clip.frames[0].path, "sha256": "2"})
    gone = clip.model_copy(update={"path": str(tmp_path / "gone.mp4"), "sha256": "3"})
    for inline in (True, False):
        found = write_elements(tmp_path / "p.html", case(avi, frames, gone), inline=inline)
        assert [found[f"video-{i}"]["url"] for i in range(3)] == [None] * 3
        assert all(len(found[f"video-{i}"]["frames"]) == 8 for i in range(3))


def test_a_frame_that_is_gone_is_a_note(clip: VideoRef, tmp_path: Path) -> None:
    Path(clip.frames[0].path).unlink()
    first, *others = write_elements(tmp_path / "p.html", case(clip))["video-0"]["frames"]
    assert first["note"].startswith("This image can't be shown. ") and all(frame["url"] for frame in others)


def test_label_studio_lists_frames_and_marks_where_they_belong(clip: VideoRef, tmp_path: Path) -> None:
    still = image("99", clip.frames[5].path)
    write_tasks([case("看", clip, "和", still)], tmp_path / "t.json")
    (task,) = orjson.loads((tmp_path / "t.json").read_bytes())
    times = "0.0, 1.5, 2.5, 4.0, 5.5, 7.0, 8.0, 9.5"
    assert task["data"]["dialogue"] == f"看[images 1 to 8: a recording at {times} s]和[image 9]"
    assert read_numbers([one["url"] for one in task["data"]["images"]])[7:] == [19, 5]
