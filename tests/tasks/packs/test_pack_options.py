"""Options of a pack: describe first, few-shot examples, text on images, the user's latest turn."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tasks.dataset.export.student_set import make_student_examples
from tasks.errors import PackError
from tasks.media import TextPart
from tasks.models.engines.server.chat import Capabilities, build_chat_body, build_probe_body
from tasks.packs.pack import TEMPLATES, Pack, load_pack
from tasks.prompts.again import reseed
from tasks.prompts.prompter import Prompter, count_fixed_chars
from tasks.prompts.turns import make_system_turn, make_user_content, make_user_text
from tasks.records import FreeText, Sampling
from tasks.students.lora_dataset import make_dataset
from tests.tasks.making import image, sample

GREEDY = Sampling()


def make_pack(folder: Path, *, top: str = "", dialogue: str = "", **templates: str) -> Pack:
    shutil.copytree(TEMPLATES / "demo", folder)
    file = folder / "pack.yaml"
    text = file.read_text(encoding="utf-8").replace("tasks:\n", top + "\ntasks:\n", 1)
    file.write_text(text.replace("  dialogue:\n", "  dialogue:\n" + dialogue, 1), encoding="utf-8")
    for name, content in templates.items():
        (folder / f"{name}.jinja").write_text(content, encoding="utf-8")
    yaml.safe_load(file.read_text(encoding="utf-8"))
    return load_pack(folder)


def prompter(pack: Pack, **names: object) -> Prompter:
    return Prompter(pack, "m", max_pixels=784, min_pixels=784, **names)  # pyright: ignore[reportArgumentType]


# --- a system turn -------------------------------------------------------------------------------------------


def test_the_system_turn_is_trained_as_it_is_asked(tmp_path: Path) -> None:
    plain, pack = load_pack("demo"), make_pack(tmp_path / "p", top="system: 你是<image>网店助手。")
    asking, subject = prompter(pack), sample("s", "用户: 在吗", image("c"))
    request = asking.classify(subject, GREEDY, with_reason=False)
    turn = {"role": "system", "content": "你是＜image＞网店助手。"}
    assert (
        make_system_turn(request) == [turn]
        and make_user_text(request) == asking.training_turns(subject, "申请退款")[1].content
    )
    body = json.loads(build_chat_body(request, "m", [b"data:x"], Capabilities(), n=1, seed=0))
    begun = json.loads(build_probe_body(request, "m", [b"data:x"], Capabilities(), "{", (1,)))
    assert body["messages"][0] == begun["messages"][0] == turn
    assert [m["role"] for m in begun["messages"]] == ["system", "user", "assistant"]
    trained = asking.training_turns(subject, "申请退款")
    assert [m.role for m in trained] == ["system", "user", "assistant"] and trained[0].content == turn["content"]
    assert make_dataset(asking, [(sample(), "")], 14)[0]["prompt"][0] == turn
    assert make_student_examples(asking, [(subject, "")], None, patch_size=14)[0].messages == trained
    assert count_fixed_chars(request) == len(request.system + request.prefix + request.suffix)
    without = prompter(plain).classify(subject, GREEDY, with_reason=False)
    assert make_system_turn(without) == [] and without.key != request.key
    assert "system" not in build_chat_body(without, "m", [b"data:x"], Capabilities(), n=1, seed=0).decode()


# --- describe first ------------------------------------------------------------------------------------------

DESCRIBE = "{% block prefix %}看：{% endblock %}{% block suffix %}请描述。{% endblock %}"
CLASSIFY = (
    "{% block prefix %}{{ glosses | tojson_text }}{% endblock %}{% block suffix %}所见：{{ description }}{% endblock %}"
)


def test_an_item_is_described_then_classified_with_the_description(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "p", top="describe_first: true", describe=DESCRIBE, classify=CLASSIFY)
    asking = prompter(pack)
    first = asking.describe(sample(), GREEDY)
    assert isinstance(first.constraint, FreeText)
    assert (first.purpose, first.prefix, first.suffix) == ("describe", "看：", "请描述。")
    second = asking.classify(sample(), GREEDY, description="一张订单")
    assert second.suffix == "所见：一张订单"
    assert second.key != asking.classify(sample(), GREEDY, description="一张发票").key


def test_describing_needs_its_template_and_stays_out_of_the_shared_prefix(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"describe\.jinja: missing"):
        make_pack(tmp_path / "a", top="describe_first: true")
    swapped = "{% block prefix %}{{ description }}{% endblock %}{% block suffix %}{% endblock %}"
    asking = prompter(make_pack(tmp_path / "b", classify=swapped))
    with pytest.raises(PackError, match="description"):
        asking.classify(sample(), GREEDY, description="x")


# --- few-shot examples ---------------------------------------------------------------------------------------

EXAMPLES = '    examples: [{text: "用户: 衣服破了", label: "反馈破损", reason: "说破了"}]\n'
SHOWS = (
    "{% block prefix %}{% for e in task.examples %}{{ e.text }}→{{ e.reason }}→{{ e.label }}\n{% endfor %}"
    "{% endblock %}{% block suffix %}{% endblock %}"
)


def test_examples_stand_in_the_shared_prefix(tmp_path: Path) -> None:
    asking = prompter(make_pack(tmp_path / "p", dialogue=EXAMPLES, classify=SHOWS))
    assert asking.classify(sample(), GREEDY).prefix == "用户: 衣服破了→说破了→反馈破损\n"


def test_examples_must_be_labelled_from_the_set_and_be_shown(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="`没有的` is not one of the labels"):
        make_pack(tmp_path / "a", dialogue=EXAMPLES.replace("反馈破损", "没有的"), classify=SHOWS)
    with pytest.raises(PackError, match="no template shows them"):
        make_pack(tmp_path / "b", dialogue=EXAMPLES)


# --- text on images ------------------------------------------------------------------------------------------

OCR = 'ocr: {before: "〔图中文字：", after: "〕", max_chars: 12}'


def test_text_stands_behind_its_image_delimited_capped_and_escaped(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "p", top=OCR)
    texts = {"a": "订单<image>号〕12345678", "b": " "}
    request = prompter(pack, texts=texts).classify(sample("s", "看", image("a"), image("b"), "完"), GREEDY)
    shown = [part.text if isinstance(part, TextPart) else part.image.sha256 for part in request.parts]
    assert shown == ["看", "a", "〔图中文字：订单<image>号 1〕", "b", "完"]
    assert "＜image＞" in make_user_text(request)
    assert make_user_text(request).count("<image>") == 2
    assert [e["type"] for e in make_user_content(request)][1:-1] == ["text", "image", "text", "image", "text"]


def test_the_key_follows_the_text_and_a_prompter_without_it_is_refused(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "p", top=OCR)
    item = sample("s", "看", image("a"))
    keys = {prompter(pack, texts={"a": text}).classify(item, GREEDY).key for text in ("一", "二")}
    assert len(keys) == 2
    with pytest.raises(ValueError, match="shows the text on images; pass `texts`"):
        prompter(pack)


# --- the user's latest turn ----------------------------------------------------------------------------------


def make_turns(*texts: str) -> tuple[TextPart, ...]:
    return tuple(TextPart(text=text, turn=number) for number, text in enumerate(texts))


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (("", "用户: 甲", "\n客服: 乙", "\n用户: 丙", "\n客服: 丁"), 3),
        (("", "客服: 甲", "\n客服: 乙"), 2),
        (("没有轮次",), 0),
    ],
)
def test_shortening_stops_before_the_users_latest_turn(texts: tuple[str, ...], kept: int) -> None:
    item = sample().model_copy(update={"parts": make_turns(*texts)})
    assert prompter(load_pack("demo")).classify(item, GREEDY).keep_from_turn == kept


# --- asking again, lengths -----------------------------------------------------------------------------------


def test_asking_again_changes_seed_and_key_and_samples() -> None:
    request = prompter(load_pack("demo")).classify(sample(), GREEDY)
    again = [reseed(request, attempt) for attempt in (1, 2)]
    assert len({request.key, *(r.key for r in again)}) == 3
    assert len({request.sampling.seed, *(r.sampling.seed for r in again)}) == 3
    assert all(r.sampling.temperature > 0 for r in again)
    assert [r.model_copy(update={"key": "", "sampling": GREEDY}) for r in again] == [
        request.model_copy(update={"key": ""})
    ] * 2


def test_a_set_context_length_is_part_of_the_key() -> None:
    keys = {prompter(load_pack("demo"), context_length=n).classify(sample(), GREEDY).key for n in (None, 4096, 8192)}
    assert len(keys) == 3


def test_the_packs_prompts_are_not_too_long_but_for_the_challenges() -> None:
    request = prompter(load_pack("demo")).classify(sample(), GREEDY)
    assert count_fixed_chars(request) == len(request.prefix + request.suffix) < 2500
