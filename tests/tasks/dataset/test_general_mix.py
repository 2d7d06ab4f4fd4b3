import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.dataset.general_mix import MixReason, check_share, convert_to_sample, draw_mix
from tasks.dataset.settings import MixSettings
from tasks.errors import ManifestError, TooManyFailures
from tasks.items.refusals import Reason
from tasks.records import Message, Origin


def turn(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def row(question: str = "问", answer: str = "答", **fields: Any) -> dict[str, Any]:
    return {"messages": [turn("user", question), turn("assistant", answer)]} | fields


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (56, 56), "red").save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    return tmp_path


def write(folder: Path, rows: list[Any], name: str = "mix.jsonl") -> Path:
    file = folder / name
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows]
    file.write_text(f"[{','.join(lines)}]" if name.endswith(".json") else "\n".join(lines), "utf-8")
    return file


@pytest.mark.parametrize("name", ["mix.json", "mix.jsonl"])
def test_a_conversation_becomes_an_example(folder: Path, name: str) -> None:
    turns = [turn("system", "你是助手"), turn("user", "<image>是什么"), turn("assistant", "红"), turn("user", "谢谢")]
    rows = [{"messages": [*turns, turn("assistant", "不客气")], "images": ["a.png"], "other": 1}]
    (found,) = draw_mix(write(folder, rows, name), folder, 5, seed=1)
    example = found.example
    assert example is not None
    assert example.messages[0] == Message(role="system", content="你是助手")
    assert [m.role for m in example.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [i.path for i in example.images] == [str(folder / "a.png")]
    assert (example.sample_id, example.origin, example.label) == ("mix-1", Origin.MIX, "")
    sample = convert_to_sample(example)
    assert [p.type for p in sample.parts] == ["image", "text", "text"]
    assert sample.images == example.images


SHOWN = {"type": "image", "image": "a.png"}


@pytest.mark.parametrize(
    "row",
    [
        {
            "conversations": [{"from": "human", "value": "<image>是什么"}, {"from": "gpt", "value": "红"}],
            "image": "a.png",
        },
        {"messages": [turn("user", [SHOWN, {"type": "text", "text": "是什么"}]), turn("assistant", "红")]},
        {
            "messages": [
                turn("user", [{"type": "image"}, {"type": "text", "text": "是什么"}]),
                turn("assistant", [{"type": "text", "text": "红"}]),
            ],
            "images": ["a.png"],
        },
        {
            "messages": [
                turn(
                    "user", [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "是什么"}]
                ),
                turn("assistant", "红"),
            ]
        },
    ],
    ids=["sharegpt", "parts", "parts and images", "openai"],
)
def test_other_forms_of_a_conversation_become_the_same_example(folder: Path, row: dict[str, Any]) -> None:
    (found,) = draw_mix(write(folder, [row]), folder, 5, seed=1)
    assert found.example is not None, found.detail
    assert [(m.role, m.content) for m in found.example.messages] == [("user", "<image>是什么"), ("assistant", "红")]
    assert [i.path for i in found.example.images] == [str(folder / "a.png")]


def test_a_part_that_no_model_is_shown_makes_a_row_unusable(folder: Path) -> None:
    bad = {"messages": [turn("user", [{"type": "audio", "audio": "a.wav"}]), turn("assistant", "红")]}
    (found,) = draw_mix(write(folder, [bad]), folder, 5, seed=1)
    assert (found.reason, found.example) == (MixReason.MALFORMED, None) and "'audio'" in found.detail


def test_a_mix_with_less_than_half_of_its_share_is_refused(folder: Path) -> None:
    settings = MixSettings(file=write(folder, [*[row()] * 12, *["{"] * 30]), share=0.5)
    assert check_share(settings, 20, seed=1) == 8
    with pytest.raises(TooManyFailures, match=r"12 of the 40 examples .*most frequent: mix_malformed, 30 times"):
        check_share(settings, 40, seed=1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param("{", MixReason.MALFORMED, id="not JSON"),
        pytest.param([1], MixReason.MALFORMED, id="no object"),
        pytest.param({"text": "a"}, MixReason.MALFORMED, id="no messages"),
        pytest.param(row(images="a.png"), MixReason.MALFORMED, id="images no list"),
        pytest.param({"messages": [turn("tool", "a")]}, MixReason.MALFORMED, id="unknown role"),
        pytest.param({"messages": [turn("user", [{"type": "text"}])]}, MixReason.MALFORMED, id="content no text"),
        pytest.param({"messages": []}, MixReason.TURNS, id="no turns"),
        pytest.param({"messages": [turn("user", "a")]}, MixReason.TURNS, id="no answer"),
        pytest.param({"messages": [turn("assistant", "a"), turn("user", "a")]}, MixReason.TURNS, id="wrong way round"),
        pytest.param(row(answer=" "), MixReason.TURNS, id="empty answer"),
        pytest.param(row("<image>"), MixReason.PLACEHOLDERS, id="no image"),
        pytest.param(row(images=["a.png"]), MixReason.PLACEHOLDERS, id="no placeholder"),
        pytest.param(row("a", "<image>", images=["a.png"]), MixReason.PLACEHOLDERS, id="placeholder in the answer"),
        pytest.param(row("<video>") | {"videos": ["a.mp4"]}, MixReason.VIDEO, id="videos"),
        pytest.param(row("<video>") | {"video": "a.mp4"}, MixReason.VIDEO, id="video"),
        pytest.param({"messages": [turn("user", [{"type": "video"}])]}, MixReason.VIDEO, id="video part"),
        pytest.param(row("<image>", images=["b.png"]), Reason.IMAGE_MISSING, id="image missing"),
        pytest.param(row("<image>", images=["cut.png"]), Reason.IMAGE_TRUNCATED, id="image cut"),
        pytest.param(row("<image>", images=["../a.png"]), Reason.PATH_ESCAPES, id="path escapes"),
    ],
)
def test_an_unusable_row_has_a_reason(folder: Path, bad: object, reason: str) -> None:
    found = draw_mix(write(folder, [row(), bad]), folder, 2, seed=1)
    assert {r.id: r.reason for r in found} == {"mix-1": "", "mix-2": reason}
    assert all(r.detail.startswith("mix.jsonl: ") for r in found if r.example is None)


def test_special_tokens_are_escaped(folder: Path) -> None:
    told = row("<image>甲<video><|im_end|>", "乙<|im_start|>", images=["a.png"])
    (found,) = draw_mix(write(folder, [told]), folder, 1, 0)
    assert found.example is not None
    assert [m.content for m in found.example.messages] == ["<image>甲＜video＞＜|im_end|＞", "乙＜|im_start|＞"]


def test_rows_are_drawn_at_random_and_a_smaller_draw_is_the_start_of_a_larger(folder: Path) -> None:
    file = write(folder, [row(f"问{i}") for i in range(40)])
    ten = [r.id for r in draw_mix(file, folder, 10, seed=1)]
    assert [r.id for r in draw_mix(file, folder, 4, seed=1)] == ten[:4]
    assert len(set(ten)) == 10
    assert [r.id for r in draw_mix(file, folder, 10, seed=2)] != ten
    drawn = Counter(r.id for seed in range(200) for r in draw_mix(file, folder, 10, seed=seed))
    assert len(drawn) == 40
    assert max(drawn.values()) < 90  # 50 are expected, the deviation is 6
    assert draw_mix(file, folder, 0, seed=1) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "contains no rows"),
        ("[]", "contains no rows"),
        ('[{"a": 1}, {', "not JSON"),
        ('[{"a": "\udcff"}]', "not JSON"),
        ("[12345678901234567890123]", "not JSON: parse error: integer overflow; correct the file"),
        (None, "cannot be read"),
    ],
)
def test_an_unusable_file_is_named_in_the_error(folder: Path, content: str | None, message: str) -> None:
    file = folder / "mix.json"
    if content is not None:
        file.write_text(content, errors="surrogateescape")
    with pytest.raises(ManifestError, match=f"mix.json: .*{message}") as error:
        draw_mix(file, folder, 3, seed=1)
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_image_folder_is_an_error(folder: Path) -> None:
    with pytest.raises(ManifestError, match="no such image folder"):
        draw_mix(write(folder, [row()]), folder / "images", 1, seed=1)
