"""Recordings in the data that `labelstill init` is given."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.start.columns import find_columns
from tasks.start.conversions import convert_rows
from tasks.start.data import get_videos, read_data
from tasks.start.starter import Caches, start
from tests.recordings import draw_numbered_frame, draw_recording

KINDS = ["tap", "scroll"] * 3


def write_clips(folder: Path, label: str) -> None:
    (folder / label).mkdir(parents=True)
    for number in range(3):
        draw_recording(folder / label / f"{number}.mp4", 20 + number)


@pytest.mark.parametrize(
    ("column", "cells", "found"),
    [
        ("clip", [f"{n}.mp4" for n in range(6)], "clip"),
        ("file", [[f"{n}.WEBM"] for n in range(6)], "file"),
        ("x", [[[f"{n}-0.png", f"{n}-1.png"]] for n in range(6)], "x"),
        ("videos", [[f"{n}-0.png", f"{n}-1.png"] for n in range(6)], "videos"),
        ("images", [[f"{n}-0.png", f"{n}-1.png"] for n in range(6)], None),
        ("video", ["none"] * 6, None),
    ],
)
def test_the_column_of_recordings_is_found(column: str, cells: list[Any], found: str | None) -> None:
    plain = {"sample_fps": 1, "text": "is it tapped"}
    rows = [plain | {column: cell, "label": kind} for cell, kind in zip(cells, KINDS, strict=True)]
    columns = find_columns(rows, {}, None)
    assert (columns.video, columns.fps) == (found, found and "sample_fps")
    assert columns.image == ("images" if column == "images" else None)


def test_conversations_with_recordings_become_items() -> None:
    answer = {"role": "assistant", "content": "tap"}
    parts = [{"type": "video", "video": ["0.png", "1.png"]}, {"type": "text", "text": "what?"}]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "<video>what?"}, answer], "videos": ["a.mp4"]},
        {"messages": [{"role": "user", "content": parts}, answer], "fps": 4},
        {"conversations": [{"from": "human", "value": "<video>\nwhat?"}, {"from": "gpt", "value": "tap"}]},
    ]  # fmt: skip
    rows[2]["video"] = "a.mp4"
    converted = convert_rows(rows)
    assert converted is not None
    assert [row["instruction"] for row in converted[1]] == ["<video>what?", "<video>what?", "<video>\nwhat?"]
    assert [row["video"] for row in converted[1]] == [["a.mp4"], [["0.png", "1.png"]], "a.mp4"]
    assert converted[1][1]["fps"] == 4


def test_a_folder_per_label_may_hold_recordings(tmp_path: Path) -> None:
    for label in ("tap", "scroll"):
        write_clips(tmp_path / "data", label)
    draw_numbered_frame(3).save(tmp_path / "data" / "tap" / "still.png")
    (tmp_path / "work").mkdir()
    caches = Caches(tmp_path / "cache" / "images", tmp_path / "cache" / "texts")
    said = "\n".join(start(tmp_path / "data", None, tmp_path / "work", caches, {}, None))
    assert "7 items, 2 labels" in said and "not:" not in said
    rows = [json.loads(line) for line in (tmp_path / "work" / "items" / "items.jsonl").read_text().splitlines()]
    assert [row.get("video") for row in rows if row["id"] == "tap/0.mp4"] == [["tap/0.mp4"]]


def test_recordings_are_found_near_the_manifest_and_rewritten_with_their_names(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips", "all")
    frames = [["all/0.png", "all/1.png"]]
    for name in frames[0]:
        draw_numbered_frame(1).save(tmp_path / "clips" / name)
    rows = [{"text": "is it tapped", "video": f"/old/all/{n % 3}.mp4", "label": KINDS[n]} for n in range(6)]
    rows[0]["video"] = frames
    (tmp_path / "train.json").write_text(json.dumps(rows))
    read = read_data(tmp_path / "train.json", None, tmp_path / "items", {}, None)
    items = [json.loads(line) for line in read.manifest.read_text().splitlines()]
    assert read.columns.video == "video"
    assert [item["video"] for item in items[:2]] == [[["clips/all/0.png", "clips/all/1.png"]], ["clips/all/1.mp4"]]
    assert get_videos(rows[1], read.found) == ["/old/all/1.mp4"]
