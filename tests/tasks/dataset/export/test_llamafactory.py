import json
from pathlib import Path

import pytest

from tasks.dataset.export.llamafactory import estimate_tokens
from tasks.dataset.export.student_set import write_data
from tasks.dataset.settings import ExportSpec
from tasks.media import ImageRef
from tasks.models.token_budget import count_image_tokens
from tests.tasks.dataset.export.making import ask, make_example, make_messages_row
from tests.tasks.making import image, prompter, sample


def test_both_files_have_all_keys_that_the_reader_needs(tmp_path: Path) -> None:
    file = write_data(tmp_path / "out", "my-set", "llamafactory", [ask("<image>问", images=1)], thinks=False)
    assert file == tmp_path / "out" / "my-set.json"
    assert json.loads(file.read_text(encoding="utf-8")) == [
        {
            "messages": [{"role": "user", "content": "<image>问"}, {"role": "assistant", "content": "答"}],
            "images": ["/images/0.png"],
        }
    ]
    info = json.loads(file.with_name("dataset_info.json").read_text(encoding="utf-8"))["my-set"]
    assert info["file_name"] == "my-set.json" and info["formatting"] == "sharegpt"
    assert set(info["columns"]) == {"messages", "images"}
    assert set(info["tags"]) == {"role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag"}


def test_a_literal_placeholder_in_text_is_no_image() -> None:
    subject = sample("a", "用户: 发了<image>和<video>", image("1"))
    turns = prompter().training_turns(subject, "申请退款", "看到<image>与<audio>字样")
    row = make_messages_row(make_example(*((t.role, t.content) for t in turns), images=1), ["/1.png"])
    messages = row["messages"]
    assert isinstance(messages, list)
    text = "".join(m["content"] for m in messages)
    assert text.count("<image>") == 1 and "<video>" not in text and "<audio>" not in text
    assert json.loads(messages[1]["content"]) == {"理由": "看到＜image＞与＜audio＞字样", "所属类别": "申请退款"}


def test_an_example_that_the_reader_would_skip_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="item item-7: 1 `<image>` for 0 images"):
        write_data(tmp_path, "set", "llamafactory", [ask(), ask("<image>")], thinks=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_set_is_an_empty_list(tmp_path: Path) -> None:
    assert json.loads(write_data(tmp_path, "set", "llamafactory", [], thinks=False).read_text("utf-8")) == []


def test_a_later_question_may_have_a_placeholder() -> None:
    turns = ("user", "a"), ("assistant", "b"), ("user", "<image><image>"), ("assistant", "c")
    assert make_messages_row(make_example(*turns, images=2), ["/0.png", "/1.png"])["images"] == ["/0.png", "/1.png"]


def test_the_length_estimate_counts_all_turns_and_images_and_is_low() -> None:
    spec = ExportSpec(max_pixels=100 * 28 * 28)
    said = (
        ("system", "规则规则"),
        ("user", "问" * 20),
        ("assistant", "答答"),
        ("user", "2024年 paid"),
        ("assistant", "b"),
    )
    assert estimate_tokens(make_example(*said), spec, patch_size=14) == (4 + 20 + 2 + 1) // 2 + 4 + 2
    # for Qwen2's tokenizer these are one token each, or one piece at least
    assert estimate_tokens(ask("internationalisation, …!?  \n\n", "😀——"), spec, patch_size=14) == 1
    screen = ImageRef(path="/1.png", sha256="1", width=1080, height=2400)
    strip = ImageRef(path="/2.png", sha256="2", width=10_000, height=10)  # which LLaMA-Factory makes less thin
    shown = ask("<image><image><image>", "", images=(screen, screen, strip))
    bounds = {"min_pixels": spec.min_pixels, "max_pixels": spec.max_pixels, "patch_size": 14}
    assert estimate_tokens(shown, spec, patch_size=14) == 2 * count_image_tokens(screen, **bounds) < 2 * 103
