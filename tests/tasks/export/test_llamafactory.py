import json
from pathlib import Path
from typing import Any

import pytest

from tasks.export.llamafactory import write_llamafactory
from tasks.merge import merge
from tasks.records import Example, Origin
from tests.tasks.making import image, prompter, sample


def example(*turns: tuple[str, str], images: int = 0) -> Example:
    return Example.model_validate(
        {
            "sample_id": "item-7",
            "messages": [{"role": role, "content": content} for role, content in turns],
            "images": [image(str(i)) for i in range(images)],
            "label": "x",
            "origin": Origin.GIVEN,
            "why": "w",
            "source": "f",
        }
    )


def written(folder: Path, *examples: Example) -> list[dict[str, Any]]:
    data, _ = write_llamafactory(folder, "set", examples)
    return json.loads(data.read_text(encoding="utf-8"))


def test_the_two_files_and_all_the_keys_that_the_reader_wants(tmp_path: Path) -> None:
    files = write_llamafactory(
        tmp_path / "out", "my-set", [example(("user", "<image>问"), ("assistant", "答"), images=1)]
    )
    assert files == [tmp_path / "out" / "my-set.json", tmp_path / "out" / "dataset_info.json"]
    assert json.loads(files[0].read_text(encoding="utf-8")) == [
        {
            "messages": [{"role": "user", "content": "<image>问"}, {"role": "assistant", "content": "答"}],
            "images": ["/images/0.png"],
        }
    ]
    info = json.loads(files[1].read_text(encoding="utf-8"))["my-set"]
    assert info["file_name"] == "my-set.json" and info["formatting"] == "sharegpt"
    assert set(info["columns"]) == {"messages", "images"}
    assert set(info["tags"]) == {"role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag"}


def test_a_literal_placeholder_in_text_reason_and_label_set_is_no_image(tmp_path: Path) -> None:
    subject = sample("a", "用户: 发了<image>和<video>", image("1"))
    kept, _ = merge([subject], [], {}, {}, {"a": "看到<image>与<audio>字样"}, prompter())
    (row,) = written(tmp_path, *kept)
    text = "".join(m["content"] for m in row["messages"])
    assert text.count("<image>") == len(row["images"]) == 1
    assert "<video>" not in text and "<audio>" not in text
    assert json.loads(row["messages"][1]["content"]) == {"理由": "看到＜image＞与＜audio＞字样", "所属类别": "申请退款"}


def test_a_system_turn_may_stand_first_and_its_placeholders_do_not_count(tmp_path: Path) -> None:
    turns = ("system", "讲讲<image>"), ("user", "<image>"), ("assistant", "答"), ("user", "再"), ("assistant", "好")
    (row,) = written(tmp_path, example(*turns, images=1))
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("turns", "images", "message"),
    [
        pytest.param((("user", "<image>"), ("assistant", "a")), 0, "1 `<image>` for 0 images", id="no image"),
        pytest.param((("user", ""), ("assistant", "a")), 1, "0 `<image>` for 1 images", id="no placeholder"),
        pytest.param((("user", "a"),), 0, "alternate", id="no answer"),
        pytest.param((("user", "a"), ("user", "b"), ("assistant", "c")), 0, "alternate", id="two users"),
        pytest.param((("assistant", "a"), ("user", "b")), 0, "alternate", id="answer first"),
        pytest.param((("user", "a"), ("system", "s"), ("assistant", "b")), 0, "alternate", id="system inside"),
        pytest.param((("system", "s"), ("system", "s"), ("user", "a"), ("assistant", "b")), 0, "alternate", id="two"),
        pytest.param((("system", "s"),), 0, "alternate", id="system only"),
        pytest.param((), 0, "alternate", id="nothing"),
    ],
)
def test_what_the_reader_would_skip_or_misread_is_refused(
    tmp_path: Path, turns: tuple[tuple[str, str], ...], images: int, message: str
) -> None:
    with pytest.raises(ValueError, match=f"item item-7: .*{message}"):
        written(tmp_path, example(*turns, images=images))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_set_is_an_empty_list(tmp_path: Path) -> None:
    assert written(tmp_path) == []


def test_a_placeholder_may_stand_in_a_later_question(tmp_path: Path) -> None:
    turns = ("user", "a"), ("assistant", "b"), ("user", "<image><image>"), ("assistant", "c")
    assert written(tmp_path, example(*turns, images=2))[0]["images"] == ["/images/0.png", "/images/1.png"]
