import re
import shutil
from pathlib import Path

import pytest
import yaml

from tasks.errors import PackError
from tasks.packs.columns import DEFAULT_COLUMNS, Columns
from tasks.packs.pack import TEMPLATES, load_pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TEMPLATES / "demo", tmp_path / "mine"))


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "pack.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_packs_hold_their_label_sets() -> None:
    www, demo = load_pack("www2025"), load_pack("demo")
    assert [(t.name, len(t.labels)) for t in www.tasks.values()] == [("image", 25), ("dialogue", 23)]
    assert {"消费者与客服聊天页面", "个人信息页面", "下单过程中出现异常（显示购买失败浮窗）", "账单/账户页面"} <= set(
        www.task("image").labels
    )
    assert list(demo.task("image").labels)[:2] == ["商品页", "规格选择页"]
    assert [len(t.labels) for t in demo.tasks.values()] == [10, 8]
    assert (www.reason_key, www.label_key, www.reason_max_chars) == ("理由", "所属类别", 50)
    assert max(len(gloss) for task in demo.tasks.values() for gloss in task.labels.values()) <= 15


def test_a_folder_loads_like_a_name_and_its_digest_follows_every_file(folder: Path) -> None:
    before = load_pack(folder)
    assert before.digest == load_pack("demo").digest
    (folder / ".answer.jinja.swp").write_bytes(b"an editor's")
    assert load_pack(folder).digest == before.digest
    with (folder / "answer.jinja").open("a") as file:
        file.write(" ")
    after = load_pack(folder)
    (folder / "answer.jinja").rename(folder / "other.txt")
    shutil.copy(folder / "other.txt", folder / "answer.jinja")
    assert len({before.digest, after.digest, load_pack(folder).digest}) == 3


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("language: zh", "language: zh\ntone: kind", "tone", "unknown key"),
        ("name: demo\n", "", "name", "missing"),
        ("recognise: '\\A", "recognise: '(\\A", "tasks.image.recognise", "regular expression"),
        ("turn: '^(?:", "turn: '^(?:(", "tasks.dialogue.turn", "regular expression"),
        ('"商品页"', '""', "tasks.image.labels", "empty"),
        ('"规格选择页"', '"商品页"', "line 2", "duplicate key `商品页`"),
        ('"规格选择页"', "{{ label }}", "line 2", "a key must be text; put it in quotes"),
        ('"规格选择页"', "[a, b]", "line 2", "a key must be text; put it in quotes"),
        ('"商品页"', "2024", "tasks.image.labels.2024", "quotes"),
        ('label_key: "所属类别"', 'label_key: "理由"', "label_key", "differ"),
        ("reason_max_chars: 50", "reason_max_chars: 0", "reason_max_chars", "greater"),
        ("tasks:\n", "tasks:\n  - [\n", "pack.yaml, line", "correct that line"),
    ],
)
def test_a_wrong_pack_names_file_and_key(folder: Path, old: str, new: str, key: str, says: str) -> None:
    change(folder, old, new)
    with pytest.raises(PackError, match=re.escape(says)) as error:
        load_pack(folder)
    assert str(folder / "pack.yaml") in str(error.value)
    assert key in str(error.value)


def test_no_labels_and_no_group_are_errors(folder: Path) -> None:
    content = yaml.safe_load((folder / "pack.yaml").read_text(encoding="utf-8"))
    content["tasks"]["image"]["labels"] = {}
    content["tasks"]["dialogue"]["label_list"] = "标签.*"
    (folder / "pack.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with pytest.raises(PackError, match=r"tasks\.image: labels: must not be empty") as error:
        load_pack(folder)
    assert "tasks.dialogue: label_list: put round brackets" in str(error.value)


def test_the_last_task_gets_the_items_that_no_other_recognises(folder: Path) -> None:
    text = (folder / "pack.yaml").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if "recognise: '\\A\\s*你是" not in line]
    (folder / "pack.yaml").write_text("\n".join(kept), encoding="utf-8")
    assert [task.recognise is None for task in load_pack(folder).tasks.values()] == [False, True]


def test_a_missing_template_or_pack_or_task_is_named(folder: Path) -> None:
    (folder / "classify.jinja").unlink()
    with pytest.raises(PackError, match=r"classify\.jinja: missing"):
        load_pack(folder)
    with pytest.raises(PackError, match="give one of captions, demo, www2025"):
        load_pack("www2024")
    with pytest.raises(PackError, match="no task `video`; the pack has image, dialogue"):
        load_pack("demo").task("video")
    (folder / "pack.yaml").unlink()
    with pytest.raises(PackError, match=r"pack\.yaml: missing"):
        load_pack(folder)


# --- without a label set -------------------------------------------------------------------------------------


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TEMPLATES / "captions", tmp_path / "captions"))


def test_a_pack_of_free_text_has_neither_labels_nor_their_keys() -> None:
    pack = load_pack("captions")
    assert pack.free_text and [(t.name, t.labels, t.free_text) for t in pack.tasks.values()] == [("caption", {}, True)]
    assert pack.columns == Columns(id=None, instruction=None, image="image_path", output="caption")
    with pytest.raises(PackError, match=r"rationales needs a label set.*leave out `generator`.*emit"):
        pack.require_labels("rationales")
    load_pack("demo").require_labels("rationales")
    assert load_pack("demo").columns == DEFAULT_COLUMNS


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "    free_text: true\n",
            "    labels: {}\n",
            "tasks.caption: labels: must not be empty; set `free_text: true`",
        ),
        ("free_text: true\n", "free_text: true\n    labels: {a: b}\n", "free_text: a free-text task has no labels"),
        ("free_text: true\n", "free_text: true\n  other:\n    free_text: true\n", "can belong to one task only"),
        ("name: captions\n", "name: captions\nreason_key: r\n", "reason_key: does not apply"),
        ("name: captions\n", "name: captions\nneither: none\n", "neither: does not apply"),
        ("  image: image_path\n", "", "set the column of `image`, `video` or `instruction`"),
        ("  image: image_path\n", "  instruction: text\n", "id: set its column"),
        ("  image: image_path\n", "  image: caption\n", "the same column is given for two fields"),
        ("  image: image_path\n", "  image: image_path\n  picture: x\n", "columns.picture: unknown key"),
        (
            "columns:\n  image: image_path\n  output: caption\n\ntasks:\n",
            "tasks:\n  other:\n    labels: {a: b}\n",
            "some have labels and some are free text",
        ),
        (
            "columns:\n  image: image_path\n  output: caption\n\ntasks:\n  caption:\n    free_text: true\n",
            "tasks:\n  caption:\n    free_text: true\n  other:\n    free_text: true\n",
            "tasks.caption.recognise: the key is missing; add it (only the last task",
        ),
    ],
)
def test_a_wrong_pack_of_free_text_is_refused(captions: Path, old: str, new: str, says: str) -> None:
    change(captions, old, new)
    if "label" in says and "some" in says:
        change(captions, "language: zh\n", "language: zh\nreason_key: r\nlabel_key: l\n")
    with pytest.raises(PackError, match=re.escape(says)):
        load_pack(captions)


def test_what_asks_for_a_text_is_needed_instead_of_what_asks_for_a_label(captions: Path) -> None:
    assert not (captions / "classify.jinja").exists()
    (captions / "write.jinja").unlink()
    with pytest.raises(PackError, match=r"write\.jinja: missing; this kind of pack needs write\.jinja, answer\.jinja"):
        load_pack(captions)
