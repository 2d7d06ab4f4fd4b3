import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.packs.label_names import match_label
from tasks.prompts.parsing import ASK_AGAIN, count_rungs, parse, parse_reason
from tasks.prompts.pointing import PointingReason
from tasks.records import USABLE, FreeText, Generation, LabelAnswer, Outcome, Request, Rung, Sampling

LABELS = ("订单页面", "物流页面-派送中", "退款A", "退款B", "商品详情页截图")
CONSTRAINT = LabelAnswer(
    labels=LABELS,
    reason_key="理由",
    label_key="所属类别",
    opening='{"理由": "',
    between='", "所属类别": "',
    closing='"}',
)


def request(constraint: LabelAnswer | FreeText = CONSTRAINT) -> Request:
    return Request(
        key="k",
        sample_id="s",
        purpose="classify",
        prefix="",
        parts=(),
        suffix="",
        constraint=constraint,
        sampling=Sampling(),
        max_pixels=784,
        min_pixels=784,
    )


def generation(*texts: str, outcome: Outcome = Outcome.OK, logprobs: dict[str, float] | None = None) -> Generation:
    return Generation(key="k", outcome=outcome, texts=texts, label_logprobs=logprobs)


def make_answer(label: str, reason: str = "因为") -> str:
    return json.dumps({"理由": reason, "所属类别": label}, ensure_ascii=False)


def parse_texts(*texts: str, outcome: Outcome = Outcome.OK, logprobs: dict[str, float] | None = None):
    return parse(request(), generation(*texts, outcome=outcome, logprobs=logprobs), source="teacher", model="m")


READ = [
    (Rung.STRICT, make_answer("订单页面"), "订单页面", "因为"),
    (Rung.STRICT, '\n {"理由":"因为",\n"所属类别":"订单页面"}\n', "订单页面", "因为"),
    (Rung.STRICT, '{"所属类别": "订单页面"}', "订单页面", ""),
    (Rung.STRICT, '{"理由": "\\ud800x", "所属类别": "订单页面"}', "订单页面", "x"),
    (Rung.STRICT, '{"理由": "因为",   \n\n\n   "所属类别": "订单页面", "把握": 0.9}', "订单页面", "因为"),
    (Rung.STRICT, '{"所属类别": "订单页面", "所属类别": "订单页面"}', "订单页面", ""),
    (Rung.STRIPPED, f"```json\n{make_answer('订单页面')}\n```", "订单页面", "因为"),
    (Rung.STRIPPED, f"好的，答案是：{make_answer('订单页面')} 希望有帮助{{}}", "订单页面", "因为"),
    (Rung.STRIPPED, f"\ufeff{make_answer('订单页面')}", "订单页面", "因为"),
    (Rung.STRIPPED, f"{{}}{make_answer('订单页面')}", "订单页面", "因为"),
    (Rung.STRIPPED, '{"所属类别": "退款A"} {"理由": "a{b", "所属类别": "订单页面"}', "订单页面", "a{b"),
    (Rung.STRIPPED, f"{make_answer('退款A')}不对。{make_answer('订单页面')}好", "订单页面", "因为"),
    (Rung.STRIPPED, f"{make_answer('订单页面')}\n格式：{make_answer('<label>', '…')}", "订单页面", "因为"),
    (Rung.STRIPPED, "{草稿" * 3 + make_answer("退款A") * 30 + make_answer("订单页面"), "订单页面", "因为"),
    (Rung.REPAIRED_JSON, "{“理由”：“因为”，“所属类别”：“订单页面”}", "订单页面", "因为"),
    (Rung.REPAIRED_JSON, "{'理由': '因为', '所属类别': '订单页面'}", "订单页面", "因为"),
    (Rung.REPAIRED_JSON, '{"理由": "因为", "所属类别": "订单页面",}', "订单页面", "因为"),
    (Rung.REPAIRED_JSON, '{"理由": "写着"退款"二字", "所属类别": "订单页面"}', "订单页面", '写着"退款"二字'),
    (Rung.REPAIRED_JSON, '{"理由": "第一行\n第二行", "所属类别": "订单页面"}', "订单页面", "第一行 第二行"),
    (Rung.REPAIRED_JSON, '{"理由": "因为", "所属类别": "订单页面"', "订单页面", "因为"),
    (Rung.REPAIRED_JSON, '```\n{"理由": "因为", "所属类别": "订单页面"\n```', "订单页面", "因为"),
    (Rung.NORMALISED, make_answer("订单页面 "), "订单页面", "因为"),
    (Rung.NORMALISED, make_answer("订单页面。"), "订单页面", "因为"),
    (Rung.NORMALISED, make_answer("退款Ａ"), "退款A", "因为"),
    (Rung.NORMALISED, make_answer("退款a"), "退款A", "因为"),
    (Rung.NORMALISED, make_answer("物流页面—派送中"), "物流页面-派送中", "因为"),
    (Rung.NORMALISED, '{"理由": "因为", "所属 类别：": "订单页面"}', "订单页面", "因为"),
    (Rung.NORMALISED, f"```{make_answer('【订单页面】')}```", "订单页面", "因为"),
    (Rung.NORMALISED, "{'理由': '因为', '所属类别': '订单页面.'}", "订单页面", "因为"),
    (Rung.NEAREST, make_answer("商品详情页的截图"), "商品详情页截图", "因为"),
    (Rung.NEAREST, f"答案{make_answer('商品详情页的截图')}", "商品详情页截图", "因为"),
    (Rung.NEAREST, "{'所属 类别': '商品详情页的截图'}", "商品详情页截图", ""),
    (Rung.BARE, "订单页面", "订单页面", ""),
    (Rung.BARE, "“订单页面”。\n", "订单页面", ""),
    (Rung.BARE, "商品详情页的截图", "商品详情页截图", ""),
]

UNREAD = [
    (make_answer("退款"), Outcome.UNKNOWN_LABEL),
    (make_answer("<label>", "…"), Outcome.UNKNOWN_LABEL),
    (f"{make_answer('订单页面')}不对，{make_answer('退款')}", Outcome.UNKNOWN_LABEL),
    (f"{make_answer('订单页面')}不对，" + '{"理由": "看到"退款", "所属类别": 退款A}', Outcome.MALFORMED),
    (f"<think>先写{make_answer('订单页面')}", Outcome.ONLY_THINKING),
    (make_answer("退款C"), Outcome.UNKNOWN_LABEL),
    (make_answer(""), Outcome.UNKNOWN_LABEL),
    (make_answer("订单页面 退款A"), Outcome.UNKNOWN_LABEL),
    (make_answer("不是商品详情页截图"), Outcome.UNKNOWN_LABEL),
    (make_answer("非商品详情页截图"), Outcome.UNKNOWN_LABEL),
    ('{"理由": "因为", "所属类别": 3}', Outcome.UNKNOWN_LABEL),
    ('{"理由": "因为", "所属类别": ["订单页面"]}', Outcome.UNKNOWN_LABEL),
    ('{"所属类别": "订单页面"、"所属类别": "退款A"', Outcome.TRUNCATED),
    ('{"理由": "因为", "所属类', Outcome.TRUNCATED),
    ('{"理由": "因为", "所属类别": "订单', Outcome.TRUNCATED),
    ("", Outcome.EMPTY),
    (" \n", Outcome.EMPTY),
    ("抱歉，我无法判断这张图片。", Outcome.REFUSED),
    ("很抱歉，图片不清楚", Outcome.REFUSED),
    ('{"理由": "抱歉，我无法识别"}', Outcome.REFUSED),
    ('```json\n{"理由": "抱歉，我无', Outcome.REFUSED),
    ("I can't help with that.", Outcome.REFUSED),
    ("I’m sorry, but no", Outcome.REFUSED),
    ("Unfortunately, I cannot see it", Outcome.REFUSED),
    ('{"理由": "因为"}', Outcome.MALFORMED),
    ('{"所属类别": "订单页面", "所属类别": "退款A"}', Outcome.MALFORMED),
    ("[1, 2]", Outcome.MALFORMED),
    ("这张图可能是订单页面也可能是退款A", Outcome.MALFORMED),
    ("不是商品详情页截图", Outcome.MALFORMED),
]


@pytest.mark.parametrize(("rung", "text", "label", "reason"), READ)
def test_what_can_be_read_and_on_which_rung(rung: Rung, text: str, label: str, reason: str):
    prediction = parse_texts(text)
    assert (prediction.rung, prediction.label, prediction.reason) == (rung, label, reason)
    assert prediction.outcome is (Outcome.OK if rung is Rung.STRICT else Outcome.REPAIRED)
    assert prediction.votes == {label: 1}


@pytest.mark.parametrize(("text", "outcome"), UNREAD)
def test_what_cannot_be_read_and_why(text: str, outcome: Outcome):
    prediction = parse_texts(text)
    assert (prediction.outcome, prediction.label, prediction.reason) == (outcome, None, "")
    assert (prediction.votes, prediction.rung) == ({}, Rung.NONE)


def test_the_rung_is_that_of_the_text_that_won():
    prediction = parse_texts(make_answer("退款B"), f"好：{make_answer('退款A')}", "退款A", "")
    assert (prediction.label, prediction.rung, prediction.outcome) == ("退款A", Rung.STRIPPED, Outcome.REPAIRED)
    logprobs = {"退款B": -0.1, "订单页面": -9.0}
    assert parse_texts(make_answer("退款B"), "退款A", "退款A", logprobs=logprobs).rung is Rung.STRICT
    alone = parse_texts(make_answer("退款A"), logprobs=logprobs)
    assert (alone.label, alone.rung, alone.outcome) == ("退款B", Rung.NONE, Outcome.REPAIRED)


def test_rungs_are_counted_strictest_first():
    predictions = [
        parse_texts(text) for text in ("订单页面", make_answer("订单页面"), "", "“退款A”", make_answer("退款B"), "？")
    ]
    assert list(count_rungs(predictions).items()) == [("strict", 2), ("bare", 2), ("none", 2)]
    assert count_rungs([]) == {}


def test_what_the_model_did_is_asked_again_and_what_the_item_or_engine_did_is_not():
    unread = {parse_texts(text).outcome for text, _ in UNREAD}
    assert unread == ASK_AGAIN
    assert set(Outcome) - ASK_AGAIN == USABLE | {Outcome.TOO_LONG, Outcome.BAD_MEDIA, Outcome.FAILED}


@given(st.text() | st.text(alphabet='{}[]"\\:,，： 理由所属类别订单页面退款AB\n', max_size=80))
def test_any_text_is_parsed_without_raising(text: str):
    prediction = parse_texts(text)
    assert (prediction.label in LABELS) == (prediction.outcome in USABLE) == (prediction.rung is not Rung.NONE)
    parse_reason(request(FreeText()), generation(text))


@given(st.sampled_from(LABELS), st.text().filter(lambda text: "think" not in text.casefold()))  # thoughts are cut
def test_what_json_can_hold_comes_back(label: str, reason: str):
    prediction = parse_texts(make_answer(label, reason))
    assert (prediction.outcome, prediction.label, prediction.reason) == (Outcome.OK, label, " ".join(reason.split()))


@pytest.mark.parametrize(
    "text",
    [
        "{" * 20_000,
        "[" * 20_000,
        '{"a":' * 20_000,
        '{"所属类别": ' + "9" * 5000 + "}",
        '{"理由": "' * 3_000,
        '{"所属类别": "' * 3_000,
        '"所属类别"' + " " * 20_000,
        "{" + '"理由":"' * 3000 + '"所属类别":"订单"',
    ],
)
def test_hostile_texts_are_quick(text: str):
    began = time.perf_counter()
    assert parse_texts(text).label is None
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.BAD_MEDIA, Outcome.TOO_LONG, Outcome.EMPTY])
def test_the_engines_outcome_stays(outcome: Outcome):
    assert parse_texts(make_answer("订单页面"), outcome=outcome).outcome is outcome
    assert parse_reason(request(), generation("x", outcome=outcome)) == (outcome, PointingReason(""))


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<Thought>", "</Thought>"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("[THINK]", "[/THINK]"),
        ("<|begin_of_thought|>", "<|end_of_thought|><|begin_of_solution|>"),
        ("<|channel>thought\n", "<channel|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("analysis", "assistantfinal"),
        ("Here's my thought process:", "Here's my response:"),
    ],
)
def test_a_draft_in_the_thinking_is_not_the_answer(opening: str, closing: str):
    thinking = f"{opening}先写{make_answer('退款A', '草稿')}，不对。"
    prediction = parse_texts(f"{thinking}{closing}\n{make_answer('订单页面', '有订单号')}")
    assert (prediction.label, prediction.reason) == ("订单页面", "有订单号")
    free = parse_reason(request(FreeText()), generation(f"{thinking}{closing}\n有订单号和地址"))
    assert free == (Outcome.OK, PointingReason("有订单号和地址"))
    if opening:
        unclosed = parse_texts(thinking, outcome=Outcome.TRUNCATED)
        assert (unclosed.outcome, unclosed.label) == (Outcome.ONLY_THINKING, None)
        assert parse_reason(request(FreeText()), generation(thinking, outcome=Outcome.TRUNCATED))[1].text == ""


def test_an_answer_of_thinking_alone_names_the_settings_to_change():
    spent = generation("<think>用户也许想退款", outcome=Outcome.TRUNCATED)
    prediction = parse(request(), spent, source="teacher", model="m")
    assert prediction.outcome is Outcome.ONLY_THINKING
    assert "`max_tokens`" in prediction.detail and "enable_thinking: false" in prediction.detail
    assert parse_reason(request(FreeText()), spent) == (Outcome.ONLY_THINKING, PointingReason(""))
    assert parse_reason(request(FreeText()), generation("<think>想完了</think> ")) == (
        Outcome.ONLY_THINKING,
        PointingReason(""),
    )


def test_a_draft_in_a_cut_text_is_not_the_answer():
    # the chat template wrote <think>, so nothing marks the thinking
    thinking = f"先看图。也许是{make_answer('退款A')}，但是图里有订单号"
    assert parse_texts(thinking, outcome=Outcome.TRUNCATED).outcome is Outcome.TRUNCATED
    assert parse_texts(f"先看图。{make_answer('退款A')}", outcome=Outcome.TRUNCATED).label == "退款A"
    assert parse_texts(f"{make_answer('退款A')}\n说明：因为", outcome=Outcome.TRUNCATED).label == "退款A"


def test_what_is_copied_from_the_prompt_is_not_the_answer():
    example = make_answer("退款A", "写着退款二字")
    asked = request().model_copy(update={"suffix": f"例如{example}"})

    def read(text: str):
        return parse(asked, generation(text), source="teacher", model="m").label

    assert read(example) is None
    assert read(f"格式是 {example}") is None
    assert read(f"{make_answer('订单页面')}\n格式：{example}") == "订单页面"
    assert read(f"{example}\n{make_answer('订单页面')}") == "订单页面"


@pytest.mark.parametrize(
    "label", ["wishful thinking", "<think>", "[THINK]", "analysis", "assistantfinal", "I think so"]
)
def test_a_label_may_be_called_like_thinking(label: str):
    constraint = CONSTRAINT.model_copy(update={"labels": (label, "其他")})
    for text in (label, make_answer(label), f"<think>{make_answer('其他')}</think>{make_answer(label)}"):
        assert parse(request(constraint), generation(text), source="t", model="m").label == label, text


def test_thinking_inside_the_reason_is_cut():
    assert parse_texts(make_answer("订单页面", "<think>也许是退款</think>有订单号")).reason == "有订单号"


def test_votes_decide_without_probabilities_and_ties_go_to_the_first_label():
    texts = [
        make_answer("退款B", "b"),
        make_answer("退款A", "a1"),
        "{",
        make_answer("退款A", "a2"),
        make_answer("退款B", "b2"),
    ]
    prediction = parse_texts(*texts)
    assert (prediction.label, prediction.votes, prediction.reason) == ("退款A", {"退款B": 2, "退款A": 2}, "a1")
    assert parse_texts(*texts[:1], *texts[2:]).label == "退款B"


def test_probabilities_overrule_votes():
    logprobs = {"订单页面": math.log(0.6), "退款A": math.log(0.4), "不是它的": 0.0}
    prediction = parse_texts(
        make_answer("退款A"), make_answer("退款A"), make_answer("订单页面", "有订单号"), logprobs=logprobs
    )
    assert (prediction.label, prediction.reason, prediction.votes["退款A"]) == ("订单页面", "有订单号", 2)
    assert prediction.probabilities == pytest.approx({"订单页面": 0.6, "退款A": 0.4})


def test_every_vote_is_kept_with_its_reason() -> None:
    prediction = parse_texts(make_answer("退款A", "a"), make_answer("退款B", "b"), "乱写", '{"所属类别": "退款A"}')
    assert [(vote.label, vote.reason) for vote in prediction.answers] == [("退款A", "a"), ("退款B", "b")]


def test_a_cut_answer_that_still_names_its_label_counts():
    assert parse_texts(make_answer("订单页面"), outcome=Outcome.TRUNCATED).outcome is Outcome.OK
    assert parse_texts("图里", outcome=Outcome.TRUNCATED).outcome is Outcome.TRUNCATED


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("abcdefgx", ("abcdefgh", "zzzzzzzz"), ("abcdefgh", Rung.NEAREST)),
        ("abcdefgx", ("abcdefgh", "abcdefgi"), None),
        ("A-B", ("A B", "A.B"), None),
        # only punctuation tells them apart
        ("C#", ("C++", "C#"), ("C#", Rung.STRICT)),
        (" C#\n", ("C++", "C#"), ("C#", Rung.NORMALISED)),
        ("C", ("C++", "C#"), None),
        ("👎", ("👍", "👎"), ("👎", Rung.STRICT)),
        ("", ("👍", "👎"), None),
        # alike, but for what turns the meaning round or names another thing
        ("非商品详情页截图", ("商品详情页截图",), None),
        ("反馈商品没有漏液", ("反馈商品有漏液",), None),
        ("第二次购买优惠券", ("第一次购买优惠券",), None),
        ("iPhone 13 页面截图", ("iPhone 12 页面截图", "其他"), None),
        ("3. 商品详情页截图", ("商品详情页截图", "订单页面"), ("商品详情页截图", Rung.NEAREST)),
        ("3 商品详情页截图", ("商品详情页截图", "订单页面"), None),
        ("unavailable", ("available", "other"), None),
        ("not delivered yet", ("delivered yet", "other"), None),
        ("delivered not yet", ("not yet delivered", "lost"), None),
        ("non-refundable item", ("refundable item",), None),
        ("indoor plantt", ("indoor plant", "other"), ("indoor plant", Rung.NEAREST)),
        # Unicode forms: width, composed letters, ligatures, invisible signs; vowel signs are letters
        ("ｃａｆｅ\u0301 ①", ("Café 1", "Cafe 1"), ("Café 1", Rung.NORMALISED)),
        ("o\ufb03ce", ("office", "home"), ("office", Rung.NORMALISED)),
        ("订单\u200b页面\ufe0f", ("订单页面", "退款"), ("订单页面", Rung.NORMALISED)),
        ("की", ("का", "कि"), None),
    ],
)
def test_the_label_that_a_text_means(text: str, labels: tuple[str, ...], expected: tuple[str, Rung] | None):
    assert match_label(text, labels) == expected


def test_reasons():
    free = request(FreeText())
    assert parse_reason(free, generation("  图中有\n订单号 ")) == (Outcome.OK, PointingReason("图中有 订单号"))
    for refusal in (
        "抱歉，无法说明",
        "图片太模糊，我无法判断",
        "作为一个AI模型，没有看法",
        "Sorry, but I cannot see it",
    ):
        assert parse_reason(free, generation(refusal)) == (Outcome.REFUSED, PointingReason(""))
    assert parse_reason(free, generation(" ")) == (Outcome.EMPTY, PointingReason(""))
    assert parse_reason(request(), generation(make_answer("订单页面", "有订单号"))) == (
        Outcome.OK,
        PointingReason("有订单号"),
    )


def test_a_free_text_request_has_no_label_to_parse():
    with pytest.raises(ValueError, match="parse_reason"):
        parse(request(FreeText()), generation("x"), source="t", model="m")


@pytest.mark.parametrize(
    "quoting",
    [
        "客服回复“抱歉，让您久等了”，用户催促发货",
        "客服：很抱歉给您带来不便。用户要求退款",
        "用户说“我无法登录”，想找回密码",
        "用户问我不能退款吗，是在申请退款",
        "The customer says “I can't log in”, so it is an account problem",
    ],
)
def test_a_reason_that_quotes_an_apology_is_no_refusal(quoting: str):
    assert parse_reason(request(FreeText()), generation(quoting)) == (Outcome.OK, PointingReason(quoting))


@pytest.mark.parametrize("value", [2.3, math.inf, math.nan])
def test_log_probabilities_above_zero_are_not_believed(value: float) -> None:
    read = parse_texts(make_answer("退款A"), logprobs={"退款A": -0.1, "订单页面": value})
    assert (read.label, read.probabilities) == ("退款A", {})
