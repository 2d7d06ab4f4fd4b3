import csv
import json
import multiprocessing
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.items.known_files import FRAMES
from tasks.items.samples import Intake, Reason, read_samples
from tasks.items.settings import VideoSettings
from tasks.items.videos import have_frames
from tasks.media import VideoRef
from tasks.packs.pack import Pack, load_pack
from tasks.records import Split
from tests.recordings import draw_numbered_frame, draw_recording, draw_sound, read_frame_number

PACK = """
name: clips
language: en
reason_key: reason
label_key: label
images_first: {first}
columns: {{id: id, instruction: text, image: image, video: video, fps: fps, output: label}}
tasks:
  clip:
    turn: '(?m)^(?:user|agent):'
    labels: {{tap: x, scroll: y}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    return tmp_path / "media"


def make_pack(folder: Path, *, first: bool) -> Pack:
    pack = folder.parent / f"pack-{first}"
    if not pack.exists():
        shutil.copytree("templates/starter/en", pack)
        (pack / "pack.yaml").write_text(PACK.format(first=str(first).lower()))
    return load_pack(pack)


def item(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "text": "<video>what happens?", "video": "a.mp4", "label": "tap"} | fields


def read(folder: Path, *items: Any, first: bool = False, **settings: Any) -> Intake:
    manifest = folder.parent / "items.json"
    manifest.write_text(json.dumps(items))
    pack = make_pack(folder, first=first)
    video = VideoSettings(**settings)
    return read_samples(manifest, folder, pack, Split.LABELLED, video=video, cache=folder.parent / "cache")


def read_one(folder: Path, *, first: bool = False, given: dict[str, Any] | None = None, **settings: Any) -> VideoRef:
    intake = read(folder, item(**given or {}), first=first, **settings)
    assert not intake.dropped, intake.dropped
    return intake.kept[0].videos[0]


def list_numbers(video: VideoRef) -> list[int | None]:
    return [read_frame_number(Image.open(frame.path)) for frame in video.frames]


def reasons(intake: Intake) -> list[str]:
    return [dropped.reason for dropped in intake.dropped]


# --- which frames --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "fps", "settings", "numbers"),
    [
        (20, 10, {}, [0, 6, 13, 19]),  # 2 s: the four that a short one has
        (60, 10, {}, [0, 5, 11, 16, 21, 27, 32, 38, 43, 48, 54, 59]),  # 6 s: two per second
        (60, 10, {"max_frames": 7}, [0, 12, 24, 35, 47, 59]),  # an even number
        (60, 10, {"fps": 0.5}, [0, 20, 39, 59]),
        (3, 10, {}, [0, 2]),
        (2, 10, {}, [0, 1]),
        (1, 10, {}, [0, 0]),
    ],
)
def test_frames_are_those_that_qwen_takes(folder: Path, frames: int, fps: int, settings: Any, numbers: Any) -> None:
    draw_recording(folder / "a.mp4", frames, fps)
    video = read_one(folder, **settings)
    assert list_numbers(video) == numbers
    assert video.times == pytest.approx([number / fps for number in numbers])
    assert video.seconds == pytest.approx(frames / fps)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mkv", "libx264"),
        ("a.mov", "libx265"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.avi", "libx264"),
        ("a.ts", "libx264"),
        ("a.flv", "flv1"),
        ("a.wmv", "wmv2"),
    ],
)
def test_all_formats_give_the_same_frames(folder: Path, name: str, codec: str) -> None:
    draw_recording(folder / name, 60, 30, codec=codec)
    video = read_one(folder, given={"video": name})
    assert list_numbers(video) == [0, 20, 39, 59]
    assert video.times == pytest.approx([0, 0.667, 1.3, 1.967], abs=0.002)


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_a_rotated_recording_is_shown_upright(folder: Path, angle: int) -> None:
    draw_recording(folder / "a.mp4", rotated=angle)
    video = read_one(folder)
    assert list_numbers(video) == [0, 6, 13, 19]
    assert {(frame.width, frame.height) for frame in video.frames} == {(112, 168)}


def test_times_are_true_where_the_frame_rate_varies(folder: Path) -> None:
    draw_recording(folder / "a.mp4", 5, times=[0, 0.1, 0.2, 2, 5])
    video = read_one(folder)
    assert (list_numbers(video), video.times) == ([0, 1, 3, 4], (0.0, 0.1, 2.0, 5.0))


def test_frames_are_shrunk_to_the_cap_and_never_enlarged(folder: Path) -> None:
    draw_recording(folder / "a.mp4", 10, size=(400, 200))
    assert {(f.width, f.height) for f in read_one(folder).frames} == {(400, 200)}
    small = read_one(folder, max_pixels=80_000)
    assert {(f.width, f.height) for f in small.frames} == {(200, 100)}
    assert list_numbers(small) == [0, 3, 6, 9]


def test_only_parts_of_a_long_recording_are_decoded_and_the_frames_are_right(folder: Path) -> None:
    draw_recording(folder / "a.mp4", 250, 10, codec="mpeg4")  # which can be entered every 12 frames
    numbers = list_numbers(read_one(folder, fps=0.2))
    assert numbers == [0, 83, 166, 249]


# --- lists of frames -----------------------------------------------------------------------------------------


def save_frames(folder: Path, count: int, **options: Any) -> list[str]:
    names = [f"f{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        draw_numbered_frame(number).save(folder / name, **options)
    return names


def test_image_files_are_the_frames_of_one_recording(folder: Path) -> None:
    names = save_frames(folder, 3)
    video = read_one(folder, given={"video": names})
    assert list_numbers(video) == [0, 1, 2, 2]
    assert (video.times, video.seconds) == ((0.0, 0.5, 1.0, 1.5), 1.5)
    assert read_one(folder, given={"video": [names], "fps": 4}).times == (0.0, 0.25, 0.5, 0.75)


def test_long_lists_are_thinned_and_shrunk(folder: Path) -> None:
    names = save_frames(folder, 11)
    video = read_one(folder, given={"video": names, "fps": "1"}, max_frames=4, max_pixels=4 * 56 * 84)
    assert list_numbers(video) == [0, 3, 7, 10]
    assert video.times == (0.0, 3.0, 7.0, 10.0)
    assert {(frame.width, frame.height) for frame in video.frames} == {(56, 84)}


def test_a_photo_among_the_frames_is_shown_upright(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(2):
        picture = draw_numbered_frame(number).rotate(90, expand=True)
        picture.save(folder / f"f{number}.jpg", exif=exif, quality=95)
    assert list_numbers(read_one(folder, given={"video": ["f0.jpg", "f1.jpg"]})) == [0, 1]


# --- places and formats --------------------------------------------------------------------------------------


def test_recordings_stand_beside_images_and_text(folder: Path) -> None:
    draw_recording(folder / "a.mp4")
    draw_recording(folder / "b.mp4", 40)
    draw_numbered_frame(7).save(folder / "c.png")
    text = "user: <video>then<image>\nagent: yes\nuser: and <video>?"
    intake = read(folder, item(text=text, video=["a.mp4", "b.mp4"], image="c.png"))
    parts = intake.kept[0].parts
    assert [(part.type, part.turn) for part in parts] == [
        ("text", 1), ("video", 1), ("text", 1), ("image", 1), ("text", 2), ("text", 3), ("video", 3), ("text", 3),
    ]  # fmt: skip
    assert [Path(video.path).name for video in intake.kept[0].videos] == ["a.mp4", "b.mp4"]
    assert intake.kept[0].user_turn == 3


def test_texts_without_placeholders_come_after_their_recordings_if_the_pack_says_so(folder: Path) -> None:
    draw_recording(folder / "a.mp4")
    draw_numbered_frame(7).save(folder / "c.png")
    (sample,) = read(folder, item(text="what?", image="c.png"), first=True).kept
    assert [part.type for part in sample.parts] == ["image", "video", "text"]
    (sample,) = read(folder, item(text=""), first=True).kept
    assert [part.type for part in sample.parts] == ["video"]
    assert reasons(read(folder, item(text="what?"))) == ["placeholder_mismatch"]


def test_every_format_of_manifests_may_name_recordings(folder: Path) -> None:
    draw_recording(folder / "a.mp4")
    frames = save_frames(folder, 2)
    rows = [item(), item(id="b", text="<video> and <video>", video=["a.mp4", frames])]
    (folder.parent / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with (folder.parent / "items.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([rows[0], rows[1] | {"video": json.dumps(rows[1]["video"])}])
    listed = {name: [row[name] for row in rows] for name in ("id", "text", "label")}
    pq.write_table(pa.table(listed | {"video": [["a.mp4"], ["a.mp4", "a.mp4"]]}), folder.parent / "items.parquet")
    pack = make_pack(folder, first=False)
    for name in ("items.jsonl", "items.csv", "items.parquet"):
        intake = read_samples(folder.parent / name, folder, pack, Split.LABELLED, cache=folder.parent / "cache")
        assert [len(sample.videos) for sample in intake.kept] == [1, 2]


def test_recordings_inside_a_parquet_file_are_unpacked(folder: Path) -> None:
    data = draw_recording(folder.parent / "a.mp4").read_bytes()
    rows = {"id": ["a"], "text": ["<video>"], "label": ["tap"], "video": [{"bytes": data, "path": None}]}
    pq.write_table(pa.table(rows), folder.parent / "items.parquet")
    pack = make_pack(folder, first=False)
    cache = folder.parent / "cache"
    intake = read_samples(folder.parent / "items.parquet", folder, pack, Split.LABELLED, cache=cache)
    assert list_numbers(intake.kept[0].videos[0]) == [0, 6, 13, 19]


# --- what is refused -----------------------------------------------------------------------------------------


def cut_short(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def make_broken_files(folder: Path) -> None:
    draw_recording(folder / "a.mp4")
    (folder / "empty.mp4").touch()
    (folder / "page.mp4").write_text("<html>404</html>")
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:2,\na.mp4\n#EXT-X-ENDLIST\n")
    draw_numbered_frame(1).save(folder / "picture.mp4", format="PNG")
    for name in ("late.mp4", "late.mkv", "late.webm", "late.avi"):
        codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
        cut_short(draw_recording(folder / name, 40, codec=codec), 0.7)
    fast = folder / "fast.mp4"  # its index comes first
    with av.open(folder / "a.mp4") as source, av.open(fast, "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    cut_short(fast, 0.8)
    draw_recording(folder / "none.mp4", 0)
    draw_sound(folder / "sound.m4a")
    draw_sound(folder / "sound.mp4")
    draw_recording(folder / "thin.mp4", size=(804, 2))
    draw_recording(folder.parent / "outside.mp4")
    (folder / "link.mp4").symlink_to(folder.parent / "outside.mp4")
    (folder / "gone.mp4").symlink_to("nothing.mp4")
    (folder / "clips").mkdir()
    save_frames(folder, 3)
    draw_numbered_frame(1, (50, 60)).save(folder / "other.png")
    (folder / "half.png").write_bytes((folder / "f0.png").read_bytes()[:100])


BROKEN = [
    ("no.mp4", Reason.VIDEO_MISSING),
    ("A.MP4", Reason.VIDEO_MISSING),
    ("gone.mp4", Reason.VIDEO_MISSING),
    ("clips", Reason.VIDEO_MISSING),
    ("x" * 300 + ".mp4", Reason.VIDEO_MISSING),
    (["f0.png", "no.png"], Reason.IMAGE_MISSING),
    ("empty.mp4", Reason.VIDEO_EMPTY),
    ("page.mp4", Reason.NOT_A_VIDEO),
    ("list.mp4", Reason.NOT_A_VIDEO),
    ("picture.mp4", Reason.NOT_A_VIDEO),
    ("f0.png", Reason.NOT_A_VIDEO),
    ("late.mp4", Reason.VIDEO_TRUNCATED),
    ("late.mkv", Reason.VIDEO_TRUNCATED),
    ("late.webm", Reason.VIDEO_TRUNCATED),
    ("late.avi", Reason.VIDEO_TRUNCATED),
    ("fast.mp4", Reason.VIDEO_TRUNCATED),
    ("none.mp4", Reason.VIDEO_WITHOUT_FRAMES),
    ("sound.m4a", Reason.VIDEO_WITHOUT_FRAMES),
    ("sound.mp4", Reason.VIDEO_WITHOUT_FRAMES),
    ("thin.mp4", Reason.IMAGE_TOO_THIN),
    ("link.mp4", Reason.PATH_ESCAPES),
    ("../outside.mp4", Reason.PATH_ESCAPES),
    ([["f0.png", "../outside.mp4"]], Reason.PATH_ESCAPES),
    (["f0.png", "other.png"], Reason.VIDEO_SIZES_DIFFER),
    (["f0.png", "half.png"], Reason.IMAGE_TRUNCATED),
    (7, Reason.VIDEO_NOT_A_NAME),
    ([["f0.png", 3]], Reason.VIDEO_NOT_A_NAME),
    ({"path": "a.mp4"}, Reason.VIDEO_NOT_A_NAME),
    ("https://shop.example/a.mp4", Reason.VIDEO_NOT_A_NAME),
    ("data:video/mp4;base64,AAAA", Reason.VIDEO_NOT_A_NAME),
    (None, Reason.PLACEHOLDER_MISMATCH),
    (["a.mp4", "a.mp4"], Reason.PLACEHOLDER_MISMATCH),
]


def test_each_broken_recording_has_its_reason_and_the_others_stay(folder: Path) -> None:
    make_broken_files(folder)
    items = [item(id=f"{number}", video=video) for number, (video, _) in enumerate(BROKEN)]
    intake = read(folder, item(id="good"), *items)
    assert len(intake.kept) + len(intake.dropped) == intake.read == len(BROKEN) + 1
    found = {dropped.sample_id: dropped.reason for dropped in intake.dropped}
    assert [(video, found.get(f"{number}")) for number, (video, _) in enumerate(BROKEN)] == BROKEN
    assert intake.kept[0].id == "good"
    again = read(folder, item(id="good"), *items)
    assert again == intake


def test_the_longest_recording_is_a_setting(folder: Path) -> None:
    draw_recording(folder / "a.mp4", 40, 10)
    assert reasons(read(folder, item(), max_seconds=3)) == ["video_too_long"]
    assert reasons(read(folder, item())) == []
    (dropped,) = read(folder, item(), max_seconds=3).dropped
    assert dropped.detail.endswith("4 s long; at most 3 s are allowed: cut it, or raise `video.max_seconds`")


def test_a_misspelled_name_is_explained(folder: Path) -> None:
    draw_recording(folder / "a.mp4")
    (dropped,) = read(folder, item(video="A.MP4")).dropped
    assert "did you mean `a.mp4`?" in dropped.detail


def test_a_column_of_another_name_is_suggested(folder: Path) -> None:
    draw_recording(folder / "a.mp4")
    row = item()
    row["videos"] = row.pop("video")
    (dropped,) = read(folder, row).dropped
    assert dropped.detail.startswith(
        "item 1: 1 `<video>` in the text, 0 in `video`; if these are meant, set `video: videos`"
    )


# --- once ----------------------------------------------------------------------------------------------------


def age(*files: Path) -> None:
    for file in files:
        os.utime(file, (1_700_000_000, 1_700_000_000))


def test_a_recording_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(draw_recording(folder / "a.mp4"))
    first = read_one(folder)
    monkeypatch.setattr("tasks.items.video_frames.av.open", None)
    assert read_one(folder) == first
    os.utime(folder / "a.mp4")  # hashed again, but not decoded
    assert read_one(folder) == first


def test_a_changed_recording_is_noticed(folder: Path) -> None:
    age(draw_recording(folder / "a.mp4"))
    first = read_one(folder)
    draw_recording(folder / "a.mp4", 60)
    second = read_one(folder)
    assert (second.sha256 != first.sha256, len(second.frames)) == (True, 12)


def test_lost_or_damaged_frames_are_taken_again(folder: Path) -> None:
    age(draw_recording(folder / "a.mp4"))
    intake = read(folder, item())
    (first,) = intake.kept[0].videos
    assert have_frames(intake.kept)
    Path(first.frames[1].path).write_bytes(b"torn")
    assert read_one(folder) == first
    shutil.rmtree(folder.parent / "cache" / FRAMES)
    assert not have_frames(intake.kept)
    assert read_one(folder) == first


def _read_again(folder: Path, _: int) -> VideoRef:
    return read_one(folder)


def test_processes_that_read_at_the_same_time_get_the_same_frames(folder: Path) -> None:
    draw_recording(folder / "a.mp4", 200)
    make_pack(folder, first=False)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.map(partial(_read_again, folder), range(3))
    assert found[0] == found[1] == found[2]
    stored = folder.parent / "cache" / FRAMES
    assert len([path for path in stored.rglob("*") if path.suffix == ".jpg"]) == len(found[0].frames)
    assert len(list(stored.glob("*/*"))) == 1
