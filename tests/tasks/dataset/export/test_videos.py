"""Recordings in the rows of every reader: its own frames in their places, and none of the readers' silent failures."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tasks.dataset.decisions import Decision, LeftOutReason, make_example
from tasks.dataset.export.conversation import UnsupportedExample, show_frames_as_images
from tasks.dataset.export.exports import Exported, write_exports
from tasks.dataset.settings import ExportSpec, Format
from tasks.media import Box
from tasks.records import Example, Origin, Subset
from tests.recordings import draw_numbered_frame, read_frame_number
from tests.tasks.dataset.export.making import ask, make_conversation
from tests.tasks.making import draw_numbered_video, image, prompter, sample

FORMATS = tuple(f for f in Format if not f.endswith(("_pairs", "_soft")))
"""Those with a row for every example."""
QWEN3 = "Qwen/Qwen3-VL-8B-Instruct"


def export(folder: Path, *examples: Example, **options: Any) -> Exported:
    spec = ExportSpec.model_validate({"formats": FORMATS} | options)
    return write_exports(folder / "out", "set", examples, spec)


def read_row(folder: Path, name: str) -> dict[str, Any]:
    text = (folder / "out" / name).read_text("utf-8")
    return json.loads(text.splitlines()[0]) if name.endswith("l") else json.loads(text)[0]


def read_numbers(files: list[str]) -> list[int | None]:
    return [read_frame_number(Image.open(file)) for file in files]


@pytest.fixture
def mixed(tmp_path: Path) -> Example:
    """A picture that shows 99, a recording of 0 to 3, text, and a recording of 10 to 15."""
    file = tmp_path / "99.png"
    draw_numbered_frame(99).save(file)
    content = (
        "看",
        image("99", str(file)),
        draw_numbered_video(tmp_path),
        "和",
        draw_numbered_video(tmp_path, 10, frames=6),
    )
    return make_example(sample("a", *content), Decision("申请退款", Origin.GIVEN, "w"), prompter())


def test_readers_that_know_frames_get_each_recording_in_its_place(mixed: Example, tmp_path: Path) -> None:
    export(tmp_path, mixed)
    for name in ("llamafactory/set.json", "swift/set.jsonl"):
        row = read_row(tmp_path, name)
        assert "看<image><video>和<video>" in row["messages"][0]["content"]
        assert read_numbers(row["images"]) == [99]
        assert [read_numbers(frames) for frames in row["videos"]] == [[*range(4)], [*range(10, 16)]]


def test_other_readers_get_the_frames_as_images_and_the_log_says_so(
    mixed: Example, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = export(tmp_path, mixed)
    wanted = [99, *range(4), *range(10, 16)]
    places = "看" + 5 * "<image>" + "和" + 6 * "<image>"
    row = read_row(tmp_path, "qwen/set.json")
    assert read_numbers(row["image"]) == wanted and places in row["conversations"][0]["value"]
    assert set(row) == {"image", "conversations"}  # it would decode `video`, and ignores `images`
    tags = read_row(tmp_path, "swift2/set.jsonl")["conversations"][0]["value"]
    assert read_numbers([tag.partition("</img>")[0] for tag in tags.split("<img>")[1:]]) == wanted
    table = pq.read_table(tmp_path / "out/trl/set.parquet")
    assert "videos" not in table.column_names  # trl would train on the text alone
    (parquet,) = table.to_pylist()
    kinds = [part["type"] for part in parquet["prompt"][0]["content"]]
    assert kinds == ["text", *["image"] * 5, "text", *["image"] * 6, "text"]
    assert [left.reason for left in made.left_out] == [LeftOutReason.NOT_ONE_IMAGE]  # vision_start
    assert "swift2, qwen, vision_start, trl: frames of recordings become images" not in caplog.text
    assert "swift2, qwen, trl: frames of recordings become images" in caplog.text


def test_boxes_stay_on_their_image_when_frames_become_images(tmp_path: Path) -> None:
    box = Box(image=1, ref="退款", corners=(0, 0, 56, 84))
    first, second = image("1"), image("2")
    example = ask("<image><video><image>", "<bbox>", images=(first, second), videos=(draw_numbered_video(tmp_path),))
    shown = show_frames_as_images(example.model_copy(update={"boxes": (box,)}))
    assert (shown.images[0], shown.images[5], shown.boxes[0].image) == (first, second, 5)
    assert "Picture 6: " in make_conversation(shown).turns[0][1]


def test_a_literal_tag_is_text_and_a_missing_or_surplus_one_is_refused(tmp_path: Path) -> None:
    clip = draw_numbered_video(tmp_path)
    subject = sample("a", "用户: 发了<video>", clip)
    turns = make_conversation(make_example(subject, Decision("申请退款", Origin.GIVEN, "w", "<video>"), prompter()))
    assert str(turns).count("<video>") == 1 and str(turns).count("＜video＞") == 2
    for question in ("没有", "<video><video>"):
        with pytest.raises(UnsupportedExample) as caught:
            make_conversation(ask(question, videos=(clip,)))
        assert caught.value.reason is LeftOutReason.VIDEOS_DO_NOT_MATCH


def test_llamafactory_is_told_the_column_only_where_the_file_has_it(mixed: Example, tmp_path: Path) -> None:
    """Its reader fails on a named column that no row has, and ignores a column that is not named."""
    export(tmp_path, mixed, ask("文字", subset=Subset.VALIDATION))
    info = json.loads((tmp_path / "out/llamafactory/dataset_info.json").read_text())
    assert info["set"]["columns"] == {"messages": "messages", "images": "images", "videos": "videos"}
    assert set(info["set_validation"]["columns"]) == {"messages", "images"}


def test_configurations_keep_readers_from_sampling_and_shrinking(mixed: Example, tmp_path: Path) -> None:
    """LLaMA-Factory shrinks frames to 256² pixels by default; ms-swift enlarges small ones."""
    export(tmp_path, mixed, min_pixels=3136, max_pixels=401408)
    for kind in ("lora", "full"):
        options = yaml.safe_load((tmp_path / f"out/llamafactory/train_{kind}.yaml").read_text())
        assert (options["video_fps"], options["video_maxlen"]) == (2.0, 6)
        assert (options["video_min_pixels"], options["video_max_pixels"]) == (3136, 401408)
        options = yaml.safe_load((tmp_path / f"out/swift/train_{kind}.yaml").read_text())["ENV"]
        assert (options["FPS"], options["VIDEO_MIN_PIXELS"], options["VIDEO_MAX_PIXELS"]) == (2.0, 3136, 401408)
    export(tmp_path, ask("文字"))
    assert "video" not in (tmp_path / "out/llamafactory/train_lora.yaml").read_text().lower().partition("### method")[2]
    assert "FPS" not in (tmp_path / "out/swift/train_lora.yaml").read_text()


def test_ms_swift_gets_absolute_frames_and_no_bounds_in_the_row(mixed: Example, tmp_path: Path) -> None:
    """It looks relative names up for images only, and loses a row that has `max_pixels` alone."""
    export(tmp_path, mixed, image_paths="copy")
    row = read_row(tmp_path, "swift/set.jsonl")
    assert row["images"][0].startswith("../images/")
    assert all(Path(frame).is_absolute() and Path(frame).exists() for frames in row["videos"] for frame in frames)
    assert row["chat_template_kwargs"] == {"raw_fps": 2.0}
    assert all(name.startswith("../images/") for name in read_row(tmp_path, "llamafactory/set.json")["videos"][0])


def test_a_rate_that_a_trainer_cannot_be_told_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = [draw_numbered_video(tmp_path, 10 * i, fps=fps) for i, fps in enumerate((2, 2, 0.5))]
    export(tmp_path, *(ask("<video>", videos=(clip,)) for clip in clips))
    assert "llamafactory: 1 of 3 recordings do not have 2 frames per second" in caplog.text
    lines = (tmp_path / "out/swift/set.jsonl").read_text().splitlines()
    assert [json.loads(line)["chat_template_kwargs"]["raw_fps"] for line in lines] == [2.0, 2.0, 0.5]


def test_what_llamafactory_misreads_for_qwen3_is_left_out(mixed: Example, tmp_path: Path) -> None:
    """It gives every recording of a row as many frames as the first, and looks for times by the turn's number."""
    later = mixed.model_copy(update={"messages": (*ask("问").messages, *mixed.messages)})
    same = ask("<video>和<video>", videos=(draw_numbered_video(tmp_path, 20), draw_numbered_video(tmp_path, 30)))
    for base, left_out in ((QWEN3, [LeftOutReason.VIDEOS_UNFIT] * 2), ("Qwen/Qwen2.5-VL-7B-Instruct", [])):
        made = export(tmp_path, mixed, later, same, base=base, formats=(Format.LLAMAFACTORY,))
        assert [left.reason for left in made.left_out] == left_out


def test_frames_that_models_see_smaller_are_written_smaller(tmp_path: Path) -> None:
    """16 frames share the pixels of eight images; trainers know one bound for the frames of all recordings."""
    example = ask("<video>", videos=(draw_numbered_video(tmp_path, frames=16),))
    export(tmp_path, example, min_pixels=3136, max_pixels=112 * 168)
    for name in ("llamafactory/set.json", "swift/set.jsonl"):
        (frames,) = read_row(tmp_path, name)["videos"]
        assert {Image.open(frame).size for frame in frames} == {(56, 112)}
        assert read_numbers(frames) == [*range(16)]


def test_a_recording_too_long_for_llamafactory_is_left_out_and_not_cut(tmp_path: Path) -> None:
    example = ask("<video>", videos=(draw_numbered_video(tmp_path, frames=40),))
    made = export(tmp_path, example, formats=(Format.LLAMAFACTORY, Format.SWIFT), max_tokens=256)
    assert [(left.format, left.reason) for left in made.left_out] == [(Format.LLAMAFACTORY, LeftOutReason.TOO_LONG)]


def test_a_frame_that_is_gone_leaves_the_example_out_of_every_format_with_pictures(
    mixed: Example, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    Path(mixed.videos[1].frames[3].path).unlink()
    made = export(tmp_path, mixed)
    assert {left.format for left in made.left_out} == {*FORMATS} - {Format.LABELS}
    assert {left.reason for left in made.left_out} == {LeftOutReason.IMAGE_UNREADABLE}
    assert made.left_out[0].detail.startswith(str(tmp_path))
