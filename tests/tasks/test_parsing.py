import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.parsing import nearest_label, parse, parse_reason
from tasks.records import FreeText, Generation, LabelAnswer, Outcome, Request, Sampling

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


def answer(label: str, reason: str = "因为") -> str:
    return json.dumps({"理由": reason, "所属类别": label}, ensure_ascii=False)


def parsed(*texts: str, outcome: Outcome = Outcome.OK, logprobs: dict[str, float] | None = None):
    return parse(request(), generation(*texts, outcome=outcome, logprobs=logprobs), source="teacher", model="m")


UGLY = [
    (answer("订单页面"), Outcome.OK, "订单页面", "因为"),
    ('\n {"理由":"因为",\n"所属类别":"订单页面"}\n', Outcome.OK, "订单页面", "因为"),
    ('{"所属类别": "订单页面"}', Outcome.OK, "订单页面", ""),
    (f"```json\n{answer('订单页面')}\n```", Outcome.REPAIRED, "订单页面", "因为"),
    (f"好的，答案是：{answer('订单页面')} 希望有帮助{{}}", Outcome.REPAIRED, "订单页面", "因为"),
    (answer("订单页面 "), Outcome.REPAIRED, "订单页面", "因为"),
    (answer("订单页面。"), Outcome.REPAIRED, "订单页面", "因为"),
    (answer("退款Ａ"), Outcome.REPAIRED, "退款A", "因为"),
    (answer("物流页面—派送中"), Outcome.REPAIRED, "物流页面-派送中", "因为"),
    (answer("商品详情页的截图"), Outcome.REPAIRED, "商品详情页截图", "因为"),
    ('{"理由": "因为", "所属 类别：": "订单页面"}', Outcome.REPAIRED, "订单页面", "因为"),
    ("{“理由”：“因为”，“所属类别”：“订单页面”}", Outcome.REPAIRED, "订单页面", "因为"),
    ("{'理由': '因为', '所属类别': '订单页面'}", Outcome.REPAIRED, "订单页面", "因为"),
    ('{"理由": "因为", "所属类别": "订单页面",}', Outcome.REPAIRED, "订单页面", "因为"),
    ('{"理由": "写着"退款"二字", "所属类别": "订单页面"}', Outcome.REPAIRED, "订单页面", '写着"退款"二字'),
    ('{"理由": "第一行\n第二行", "所属类别": "订单页面"}', Outcome.REPAIRED, "订单页面", "第一行 第二行"),
    ('{"理由": "因为", "所属类别": "订单页面"', Outcome.REPAIRED, "订单页面", "因为"),
    ('{"理由": "a{b", "所属类别": "订单页面"} {"所属类别": "退款A"}', Outcome.REPAIRED, "订单页面", "a{b"),
    ('{"理由": "\\ud800x", "所属类别": "订单页面"}', Outcome.OK, "订单页面", "x"),
    ("订单页面", Outcome.REPAIRED, "订单页面", ""),
    (answer("退款"), Outcome.UNKNOWN_LABEL, None, ""),
    (answer("退款C"), Outcome.UNKNOWN_LABEL, None, ""),
    (answer(""), Outcome.UNKNOWN_LABEL, None, ""),
    ('{"理由": "因为", "所属类别": 3}', Outcome.UNKNOWN_LABEL, None, ""),
    ('{"所属类别": "订单页面"、"所属类别": "退款A"', Outcome.TRUNCATED, None, ""),
    ('{"理由": "因为", "所属类', Outcome.TRUNCATED, None, ""),
    ('{"理由": "因为", "所属类别": "订单', Outcome.TRUNCATED, None, ""),
    ("", Outcome.EMPTY, None, ""),
    (" \n", Outcome.EMPTY, None, ""),
    ("抱歉，我无法判断这张图片。", Outcome.REFUSED, None, ""),
    ('{"理由": "抱歉，我无法识别"}', Outcome.REFUSED, None, ""),
    ("I can't help with that.", Outcome.REFUSED, None, ""),
    ("I’m sorry, but no", Outcome.REFUSED, None, ""),
    ('{"理由": "因为"}', Outcome.MALFORMED, None, ""),
    ("[1, 2]", Outcome.MALFORMED, None, ""),
    ("这张图可能是订单页面也可能是退款A", Outcome.MALFORMED, None, ""),
]


@pytest.mark.parametrize(("text", "outcome", "label", "reason"), UGLY)
def test_ugly_answers(text: str, outcome: Outcome, label: str | None, reason: str):
    prediction = parsed(text)
    assert (prediction.outcome, prediction.label, prediction.reason) == (outcome, label, reason)
    assert prediction.votes == ({label: 1} if label else {})


@given(st.text() | st.text(alphabet='{}[]"\\:,，： 理由所属类别订单页面退款AB\n', max_size=80))
def test_any_text_is_parsed_without_raising(text: str):
    prediction = parsed(text)
    assert (prediction.label in LABELS) == (prediction.outcome in {Outcome.OK, Outcome.REPAIRED})
    parse_reason(request(FreeText()), generation(text))


@given(st.sampled_from(LABELS), st.text())
def test_what_json_can_hold_comes_back(label: str, reason: str):
    prediction = parsed(answer(label, reason))
    assert (prediction.outcome, prediction.label, prediction.reason) == (Outcome.OK, label, " ".join(reason.split()))


@pytest.mark.parametrize("text", ["{" * 20_000, "[" * 20_000, '{"a":' * 20_000, '{"所属类别": ' + "9" * 5000 + "}"])
def test_hostile_texts_are_quick(text: str):
    began = time.perf_counter()
    assert parsed(text).label is None
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.BAD_MEDIA, Outcome.TOO_LONG, Outcome.EMPTY])
def test_the_engines_outcome_stays(outcome: Outcome):
    assert parsed(answer("订单页面"), outcome=outcome).outcome is outcome
    assert parse_reason(request(), generation("x", outcome=outcome)) == (outcome, "")


def test_votes_decide_without_probabilities_and_ties_go_to_the_first_label():
    texts = [answer("退款B", "b"), answer("退款A", "a1"), "{", answer("退款A", "a2"), answer("退款B", "b2")]
    prediction = parsed(*texts)
    assert (prediction.label, prediction.votes, prediction.reason) == ("退款A", {"退款B": 2, "退款A": 2}, "a1")
    assert parsed(*texts[:1], *texts[2:]).label == "退款B"


def test_probabilities_overrule_votes():
    logprobs = {"订单页面": math.log(0.6), "退款A": math.log(0.4), "不是它的": 0.0}
    prediction = parsed(answer("退款A"), answer("退款A"), answer("订单页面", "有订单号"), logprobs=logprobs)
    assert (prediction.label, prediction.reason, prediction.votes["退款A"]) == ("订单页面", "有订单号", 2)
    assert prediction.probabilities == pytest.approx({"订单页面": 0.6, "退款A": 0.4})


def test_a_cut_answer_that_still_names_its_label_counts():
    assert parsed(answer("订单页面"), outcome=Outcome.TRUNCATED).outcome is Outcome.OK
    assert parsed("图里", outcome=Outcome.TRUNCATED).outcome is Outcome.TRUNCATED


def test_nearest_label_needs_one_clear_winner():
    assert nearest_label("abcdefgx", ("abcdefgh", "zzzzzzzz")) == "abcdefgh"
    assert nearest_label("abcdefgx", ("abcdefgh", "abcdefgi")) is None
    assert nearest_label("A-B", ("A B", "A.B")) is None


def test_reasons():
    free = request(FreeText())
    assert parse_reason(free, generation("  图中有\n订单号 ")) == (Outcome.OK, "图中有 订单号")
    assert parse_reason(free, generation("抱歉，无法说明")) == (Outcome.REFUSED, "")
    assert parse_reason(free, generation(" ")) == (Outcome.EMPTY, "")
    assert parse_reason(request(), generation(answer("订单页面", "有订单号"))) == (Outcome.OK, "有订单号")


def test_a_free_text_request_has_no_label_to_parse():
    with pytest.raises(ValueError, match="parse_reason"):
        parse(request(FreeText()), generation("x"), source="t", model="m")
