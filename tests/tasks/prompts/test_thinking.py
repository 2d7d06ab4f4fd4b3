"""What a model thought is parted from what it answered, and a form that is missing is asked for."""

from typing import Any

import pytest

from tasks.prompts.again import request_reformat
from tasks.prompts.thinking import choose_thoughts, cut_thinking, read_thoughts, split_thinking
from tasks.records import FreeText, Generation, Outcome, Request, Sampling
from tests.tasks.making import generation, prompter, sample

ANSWER = '{"理由": "问包裹", "所属类别": "查询物流"}'


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("答", "", "答"),
        ("<think>想</think>答", "想", "答"),
        ("想</think>\n\n答", "想", "答"),
        ("<think>一</think>答<think>二</think>", "一\n二", "答"),
        ("<think>想 <think> 想</think>答", "想 <think> 想", "答"),
        ("<think>没完", "", ""),
        ('{"a": "<think>"}', "", '{"a": "<think>"}'),
    ],
)
def test_thinking_is_parted_from_the_answer(text: str, thoughts: str, answer: str) -> None:
    assert split_thinking(text) == (thoughts, answer)
    assert cut_thinking(text) == answer


def test_the_thoughts_before_the_chosen_label_are_taken() -> None:
    answers = generation(texts=("不知道", "在文中</think>查询物流", "申请退款"), thoughts=("一", "", "三"))
    assert read_thoughts(answers) == ["一", "在文中", "三"]
    assert [choose_thoughts(answers, label) for label in ("查询物流", "申请退款", "反馈破损")] == ["在文中", "三", ""]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"原因": "少了一件", "标签": "商品质量问题"}', '{"原因": "坏了", "标签": "商品质量"}'),
        ('{"原因": "不是商品质量", "标签": "催发货"}', '{"原因": "坏了", "标签": "商品质量" }\n'),
        ("标签：售后商品质量", "标签：商品质量。"),
        ("标签：商品质量差", "商品质量"),
    ],
)
def test_thoughts_for_another_label_are_not_taken(first: str, second: str) -> None:
    assert choose_thoughts(generation(texts=(first, second), thoughts=("别的", "这个")), "商品质量") == "这个"
    assert choose_thoughts(generation(texts=(first,), thoughts=("别的",)), "商品质量") == ""


def test_a_label_with_quotation_marks_is_found() -> None:
    answer = generation(texts=('{"标签": "称为\\"坏\\""}',), thoughts=("想",))
    assert choose_thoughts(answer, '称为"坏"') == "想"


def request(**fields: Any) -> Request:
    return prompter().classify(sample(), Sampling()).model_copy(update={"thinking": 99, **fields})


@pytest.mark.parametrize(
    ("answer", "drafts"),
    [
        (generation(texts=("和物流有关",), thoughts=("想",)), ("想\n\n和物流有关",)),
        (generation(texts=("<think>想</think>和物流有关",)), ("想\n\n和物流有关",)),
        (generation(texts=("",), thoughts=("想",), outcome=Outcome.EMPTY), ("想",)),
        (generation(texts=('{"理由": "问',), thoughts=("想",), outcome=Outcome.TRUNCATED), ('想\n\n{"理由": "问',)),
        (
            generation(texts=(ANSWER, "和物流有关", "没有想"), thoughts=("一", "二", "")),
            (f"一\n\n{ANSWER}", "二\n\n和物流有关"),
        ),
    ],
)
def test_the_form_is_asked_for_with_what_was_thought_and_written(answer: Generation, drafts: tuple[str, ...]) -> None:
    first = request()
    again = request_reformat(first, answer)
    assert again is not None and (again.drafts, again.thinking) == (drafts, 0)
    assert again.key != first.key and again.sample_id == first.sample_id
    assert request_reformat(again, answer) is None


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (request(), generation(texts=(ANSWER,), thoughts=("想",))),
        (request(), generation(texts=("没有想",))),
        (request(), generation(texts=("<think>没完",), outcome=Outcome.TRUNCATED)),
        (request(), generation(texts=(), outcome=Outcome.FAILED)),
        (request(thinking=0), generation(texts=("和物流有关",), thoughts=("想",))),
        (request(constraint=FreeText()), generation(texts=("和物流有关",), thoughts=("想",))),
    ],
)
def test_the_form_is_not_asked_for_without_need(asked: Request, answer: Generation) -> None:
    assert request_reformat(asked, answer) is None
