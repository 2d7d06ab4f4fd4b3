import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import PackError
from tasks.packs.pack import TEMPLATES, load_pack
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import IMAGE_TOKEN, make_user_content, make_user_text
from tasks.records import FreeText, LabelAnswer, Request, Sample, Sampling
from tests.tasks.making import image, parts, prompter, sample

SNAPSHOTS = Path(__file__).resolve().parents[2] / "snapshots"
GREEDY = Sampling()
PROMPTERS = {pack: prompter(pack) for pack in ("www2025", "demo")}
ANSWERS = {"www2025": ("商品详情页截图", "反馈密封性不好"), "demo": ("商品页", "反馈破损")}


def item(pack: str, task: str) -> Sample:
    content = ("\n用户: 在吗\n客服: 在的", image("c"), "这个“杯子”漏水") if task == "dialogue" else (image("c"),)
    labels = tuple(load_pack(pack).task(task).labels)
    return sample("x", *content, task=task, labels=labels, given=labels[0])


def render(pack: str, task: str, template: str) -> str:
    asking, subject = prompter(pack), item(pack, task)
    label = ANSWERS[pack][task == "dialogue"]
    assert label in subject.labels
    if template == "rationale":
        return make_user_text(asking.rationale(subject, label, GREEDY))
    if template == "judge":
        request = asking.judge(subject, label, subject.labels[1], "看到“漏”字", ("good", "invented"), GREEDY)
        return make_user_text(request)
    if template == "classify":
        with_reason, without = (make_user_text(asking.classify(subject, GREEDY, with_reason=w)) for w in (True, False))
        return f"{with_reason}\n--- without a reason ---\n{without}"
    return f"{asking.answer(label, '看到“漏”字')}\n{asking.answer(label)}"


def test_a_prompter_that_has_rendered_asks_the_same_in_another_process() -> None:
    asking, subject = prompter("demo"), item("demo", "dialogue")
    asked = asking.classify(subject, GREEDY, with_reason=True)
    assert pickle.loads(pickle.dumps(asking)).classify(subject, GREEDY, with_reason=True) == asked


@pytest.mark.parametrize("pack", ["www2025", "demo"])
@pytest.mark.parametrize("task", ["image", "dialogue"])
@pytest.mark.parametrize("template", ["rationale", "classify", "answer", "judge"])
def test_rendered_prompts_are_the_stored_ones(pack: str, task: str, template: str) -> None:
    file = SNAPSHOTS / f"{pack}_{task}_{template}.txt"
    text = render(pack, task, template) + "\n"
    if os.environ.get("LABELSTILL_UPDATE_SNAPSHOTS") == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), (
        "if it is meant: LABELSTILL_UPDATE_SNAPSHOTS=1 pytest, then read it"
    )


@pytest.mark.parametrize("pack", ["www2025", "demo"])
@pytest.mark.parametrize("task", ["image", "dialogue"])
def test_well_formed_glosses_come_first_and_nothing_is_left_unrendered(pack: str, task: str) -> None:
    subject = item(pack, task)
    for request in (prompter(pack).classify(subject, GREEDY), prompter(pack).rationale(subject, "x", GREEDY)):
        glosses, end = json.JSONDecoder().raw_decode(request.prefix)
        assert glosses == load_pack(pack).task(task).labels
        assert list(glosses) == list(subject.labels)
        assert end < len(request.prefix)
        assert not any(mark in make_user_text(request) for mark in ("{{", "}}", "{%", "\ue000", "\ue001"))


def test_only_the_labels_that_the_item_may_get_are_explained() -> None:
    request = prompter().classify(sample(labels=("查询物流", "申请退款")), GREEDY)
    assert list(json.JSONDecoder().raw_decode(request.prefix)[0]) == ["查询物流", "申请退款"]
    assert "反馈破损" not in request.prefix


def test_the_question_asked_blind_does_not_hold_the_given_label() -> None:
    asking = prompter()
    a, b = (asking.classify(sample(given=given), GREEDY) for given in ("申请退款", "查询物流"))
    assert a == b


@pytest.mark.parametrize("reason", ["看到“漏”字", ""])
def test_what_is_trained_is_what_is_asked(reason: str) -> None:
    asking, subject = prompter(), sample("x", image("c"), "这个<image>漏水", labels=("反馈破损", "申请退款"))
    user, assistant = asking.training_turns(subject, "反馈破损", reason)
    assert (user.role, assistant.role) == ("user", "assistant")
    assert user.content == make_user_text(asking.classify(subject, GREEDY, with_reason=bool(reason)))
    assert user.content.count(IMAGE_TOKEN) == 1
    assert json.loads(assistant.content) == ({"理由": reason} if reason else {}) | {"所属类别": "反馈破损"}


def test_a_free_text_is_asked_for_and_answered_with_nothing_around_it() -> None:
    asking = prompter("captions")
    subject = sample("x", image("c"), task="caption", labels=(), given="一张“红色”的杯子")
    request = asking.write(subject, GREEDY)
    assert isinstance(request.constraint, FreeText)
    turns = asking.training_turns(subject, "一张“红色”的杯子")
    assert [(m.role, m.content) for m in turns] == [
        ("user", make_user_text(request)),
        ("assistant", "一张“红色”的杯子"),
    ]
    assert make_user_text(request).startswith(IMAGE_TOKEN + "\n")
    assert "红色" not in make_user_text(request)
    with pytest.raises(PackError, match="free_text: asking for a label needs a label set"):
        asking.classify(subject, GREEDY)


# --- the pack's files are other people's ---------------------------------------------------------------------


def make_changed_prompter(folder: Path, template: str, text: str) -> Prompter:
    shutil.copytree(TEMPLATES / "demo", folder)
    (folder / template).write_text(text, encoding="utf-8")
    return Prompter(load_pack(folder), "m", max_pixels=784, min_pixels=784)


def make_blocks(prefix: str = "", suffix: str = "") -> str:
    return f"{{% block prefix %}}{prefix}{{% endblock %}}{{% block suffix %}}{suffix}{{% endblock %}}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(make_blocks(suffix="{{ glossen }}"), id="misspelt variable"),
        pytest.param(make_blocks(suffix="{{ task.nam }}"), id="misspelt field"),
        pytest.param(make_blocks(suffix="{{ glosses | to_json }}"), id="misspelt filter"),
        pytest.param(make_blocks(suffix="{{ ''.__class__.__mro__ }}"), id="reaches into Python"),
        pytest.param(make_blocks(suffix="{{ pack.folder.joinpath('pack.yaml').read_text() }}"), id="reads a file"),
        pytest.param(make_blocks(suffix="{{ pack.columns.parse_raw('N.', proto='pickle') }}"), id="loads a pickle"),
        pytest.param(make_blocks(suffix="{{ glosses.clear() }}"), id="changes what it is given"),
        pytest.param(make_blocks(suffix="{{ 1 / 0 }}"), id="own arithmetic fails"),
        pytest.param(make_blocks(suffix="{{ 1 + 'a' }}"), id="own types do not fit"),
        pytest.param(make_blocks(suffix="{{ range(1000000000) | list }}"), id="endless"),
        pytest.param(make_blocks(prefix="{% if %}"), id="syntax"),
        pytest.param("{% block prefix %}{% endblock %}", id="a block is missing"),
        pytest.param(make_blocks(prefix="{{ label }}"), id="prefix, the same for all items, uses the item's label"),
    ],
)
def test_a_wrong_template_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    asking = make_changed_prompter(tmp_path / "mine", "rationale.jinja", text)
    with pytest.raises(PackError, match=r"mine/rationale\.jinja"):
        asking.rationale(sample(), "申请退款", GREEDY)


def test_a_template_that_is_not_utf8_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    asking = make_changed_prompter(tmp_path / "mine", "classify.jinja", "")
    (tmp_path / "mine" / "classify.jinja").write_bytes("请".encode("gbk"))
    with pytest.raises(PackError, match=r"mine/classify\.jinja"):
        asking.classify(sample(), GREEDY)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"label": "{{ label }}", "why": "{{ reason }}"}', id="label before reason"),
        pytest.param('{"label": "{{ label }}"}', id="no reason"),
        pytest.param('{"why": "{{ reason }}"}', id="no label"),
        pytest.param("{{ reason }} {{ label }} {{ label }}", id="label twice"),
        pytest.param("{{ reason }} {{ reason }} {{ label }}", id="reason twice"),
    ],
)
def test_an_answer_template_must_write_reason_then_label(tmp_path: Path, text: str) -> None:
    asking = make_changed_prompter(tmp_path / "mine", "answer.jinja", text)
    with pytest.raises(PackError, match=r"mine/answer\.jinja"):
        asking.classify(sample(), GREEDY)


# --- the key -------------------------------------------------------------------------------------------------


def make_key(asking: Prompter, subject: Sample, sampling: Sampling = GREEDY) -> str:
    return asking.classify(subject, sampling).key


def test_the_key_forgets_who_asks_where_the_image_lies_and_the_given_label() -> None:
    same = [
        sample("a", image("1", "/here/a.png"), given="申请退款", source="one.json"),
        sample("b", image("1", "/there/b.png"), given=None, source="two.json"),
    ]
    assert len({make_key(prompter(), s) for s in same}) == 1


def test_the_key_changes_with_everything_that_the_model_sees(tmp_path: Path) -> None:
    plain = sample("s", "用户: 在", image("1"))
    wider = Prompter(load_pack("demo"), "m", max_pixels=112 * 168 + 1, min_pixels=56 * 56)
    taller = Prompter(load_pack("demo"), "m", max_pixels=112 * 168, min_pixels=56 * 56 + 1)
    text = (TEMPLATES / "demo" / "classify.jinja").read_text(encoding="utf-8")
    reworded = make_changed_prompter(tmp_path / "demo", "classify.jinja", text.replace("只输出", "请只输出"))
    keys = [
        make_key(prompter(), plain),
        make_key(prompter(), sample("s", "用户: 在", image("2"))),
        make_key(prompter(), sample("s", "用户: 吗", image("1"))),
        make_key(prompter(), sample("s", image("1"), "用户: 在")),
        make_key(prompter(), sample("s", "用户: 在", image("1"), labels=("申请退款", "查询物流"))),
        make_key(prompter(), sample("s", "用户: 在", image("1"), labels=("查询物流", "申请退款", "反馈破损"))),
        make_key(prompter(model="other"), plain),
        make_key(wider, plain),
        make_key(taller, plain),
        make_key(Prompter(reworded.pack, "m", max_pixels=112 * 168, min_pixels=56 * 56), plain),
        *(
            make_key(prompter(), plain, s)
            for s in (
                Sampling(seed=1),
                Sampling(max_tokens=7),
                Sampling(temperature=0.5),
                Sampling(temperature=0.5, n=2),
                Sampling(temperature=0.5, top_p=0.5),
                Sampling(label_probabilities=True),
            )
        ),
        prompter().classify(plain, GREEDY, with_reason=False).key,
        prompter().rationale(plain, "申请退款", GREEDY).key,
        prompter().rationale(plain, "查询物流", GREEDY).key,
    ]
    assert len(set(keys)) == len(keys)


# --- the answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", ["www2025", "demo"])
@settings(deadline=None, max_examples=40)
@given(
    reason=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1),
    label=st.sampled_from(["a", '"', "标 签"]),
)
def test_the_forms_put_together_are_the_answer(pack: str, reason: str, label: str) -> None:
    asking = PROMPTERS[pack]
    constraint = asking.classify(sample(labels=(label,)), GREEDY).constraint
    assert isinstance(constraint, LabelAnswer) and constraint.between is not None
    written, spelled = (json.dumps(value, ensure_ascii=False)[1:-1] for value in (reason, label))
    whole = constraint.opening + written + constraint.between + spelled + constraint.closing
    assert whole == asking.answer(label, reason)
    assert list(json.loads(whole).items()) == [(constraint.reason_key, reason), (constraint.label_key, label)]

    bare = asking.classify(sample(labels=(label,)), GREEDY, with_reason=False).constraint
    assert isinstance(bare, LabelAnswer) and bare.between is None and bare.reason_key is None
    assert bare.opening + spelled + bare.closing == asking.answer(label)
    assert json.loads(asking.answer(label)) == {constraint.label_key: label}


# --- the user turn -------------------------------------------------------------------------------------------


def test_content_and_text_say_the_same_and_a_literal_placeholder_is_no_image() -> None:
    request = prompter().classify(sample("s", "发<image>了", image("1"), image("2"), "<video>和<audio>呢"), GREEDY)
    content = make_user_content(request)
    assert [e["type"] for e in content] == ["text", "text", "image", "image", "text", "text"]
    assert [e["image"] for e in content if e["type"] == "image"] == ["/images/1.png", "/images/2.png"]
    assert "".join(e.get("text", IMAGE_TOKEN) for e in content) == make_user_text(request)
    assert make_user_text(request).count(IMAGE_TOKEN) == 2
    assert "发＜image＞了<image><image>＜video＞和＜audio＞呢" in make_user_text(request)


def test_a_literal_placeholder_in_a_template_is_no_image(tmp_path: Path) -> None:
    asking = make_changed_prompter(tmp_path / "mine", "rationale.jinja", make_blocks("看<image>：", "<image>是什么"))
    request = asking.rationale(sample("s", image("1")), "申请退款", GREEDY)
    assert make_user_text(request) == "看＜image＞：<image>＜image＞是什么"


def test_empty_texts_are_left_out() -> None:
    constraint = prompter().classify(sample(), GREEDY).constraint
    request = Request(
        key="k",
        sample_id="s",
        purpose="p",
        prefix="",
        parts=parts("", image("1")),
        suffix="",
        constraint=constraint,
        sampling=GREEDY,
        max_pixels=784,
        min_pixels=784,
    )
    assert make_user_content(request) == [{"type": "image", "image": "/images/1.png"}]
