"""Rows of the formats whose readers mend, drop or swap what they can't read."""

import re

import pytest

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample
from tests.tasks.dataset.export.making import (
    ask,
    make_example,
    make_qwen_row,
    make_swift2_row,
    make_swift_row,
    make_vision_start_row,
)

SYSTEM = make_example(("system", "规则"), ("user", "问"), ("assistant", "答"))
TWICE = make_example(("user", "<image>一"), ("assistant", "a"), ("user", "二<image>"), ("assistant", "b"), images=2)


def test_swift_rows_have_one_tag_per_image_and_no_unknown_column() -> None:
    row = make_swift_row(TWICE, ["/0.png", "/1.png"])
    assert set(row) == {"messages", "images"} and row["images"] == ["/0.png", "/1.png"]
    assert str(row["messages"]).count("<image>") == 2
    # in a row without images it looks for files between <img> tags, and drops them when there are none
    assert "<img>" not in str(make_swift_row(ask("<img>/a.png</img>", "<img>/a.png</img>"), [])["messages"])


def test_swift_2_rows_have_each_image_in_its_place() -> None:
    assert make_swift2_row(TWICE, ["/0.png", "/1.png"]) == {
        "conversations": [
            {"from": "user", "value": "<img>/0.png</img>一"},
            {"from": "assistant", "value": "a"},
            {"from": "user", "value": "二<img>/1.png</img>"},
            {"from": "assistant", "value": "b"},
        ]
    }
    assert make_swift2_row(SYSTEM, [])["system"] == "规则"


def test_swift_2_refuses_a_path_that_would_end_its_tag() -> None:
    with pytest.raises(UnsupportedExample, match="</img>") as caught:
        make_swift2_row(ask("<image>", images=1), ["/a</img>.png"])
    assert caught.value.reason is LeftOutReason.PATH_UNFIT


def test_qwen_rows_have_the_image_key_that_both_readers_expect() -> None:
    assert make_qwen_row(ask("<image>问", images=1), ["/0.png"]) == {
        "image": "/0.png",
        "conversations": [{"from": "human", "value": "<image>问"}, {"from": "gpt", "value": "答"}],
    }
    assert make_qwen_row(TWICE, ["/0.png", "/1.png"])["image"] == ["/0.png", "/1.png"]
    # an empty list breaks the older one, which then trains on the next row instead
    assert "image" not in make_qwen_row(ask(), [])


@pytest.mark.parametrize("row", [make_qwen_row, make_vision_start_row])
def test_formats_without_system_turns_refuse_them(row: type[object]) -> None:
    subject = make_example(("system", "规则"), ("user", "<image>"), ("assistant", "答"), images=1)
    with pytest.raises(UnsupportedExample) as caught:
        row(subject, ["/0.png"])  # pyright: ignore[reportCallIssue]
    assert caught.value.reason is LeftOutReason.SYSTEM_TURN


def test_vision_start_rows_have_one_image_and_one_exchange() -> None:
    row = make_vision_start_row(ask("看<image>问<|vision_start|>", images=1), ["/0.png"])
    assert row["id"] == "item-7"
    (question, _) = row["conversations"]  # pyright: ignore[reportGeneralTypeIssues]
    # how the tutorials read it
    assert re.split(r"<\|vision_(?:start|end)\|>", question["value"]) == ["看", "/0.png", "问＜|vision_start|＞"]
    for subject, names, reason in [
        (ask(), [], LeftOutReason.NOT_ONE_IMAGE),
        (ask("<image><image>", images=2), ["/0.png", "/1.png"], LeftOutReason.NOT_ONE_IMAGE),
        (
            make_example(("user", "<image>"), ("assistant", "a"), ("user", "b"), ("assistant", "c"), images=1),
            ["/0.png"],
            LeftOutReason.NOT_ONE_TURN,
        ),
    ]:
        with pytest.raises(UnsupportedExample) as caught:
            make_vision_start_row(subject, names)
        assert caught.value.reason is reason
