import random

import pytest

from tasks.alikeness import Crowds, Worded, crowded_out, diversity, find_alike, near_pairs
from tasks.wording import BadReason


def worded(*texts: str, label: str = "a") -> list[Worded]:
    return [Worded(text, label) for text in texts]


def jaccard(a: str, b: str) -> float:
    x, y = ({t[i : i + 2] for i in range(len(t) - 1)} | {t[-1:] + "\3"} for t in (a, b))
    return len(x & y) / len(x | y)


def test_pairs_are_those_of_the_plain_definition() -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choice("甲乙丙丁戊") for _ in range(rng.randint(2, 12))) for _ in range(300)]
    texts += [t[:-1] + "己" for t in texts[:100]]
    for least in (0.3, 0.6, 0.8, 1.0):
        plain = {(i, j) for j in range(len(texts)) for i in range(j) if jaccard(texts[i], texts[j]) >= least - 1e-9}
        assert set(near_pairs(texts, least)) == plain
        assert plain


def test_commas_width_and_case_are_no_difference() -> None:
    assert near_pairs(["有ABC，和１２３", "有abc和123。", "别的内容"], 1.0) == [(0, 1)]


def test_many_copies_stay_few_pairs() -> None:
    pairs = near_pairs(["一样的话"] * 2000 + ["别的内容在此"], 0.8)
    assert {i for pair in pairs for i in pair} == set(range(2000))
    assert len(pairs) < 2000 * 51


def test_of_a_pair_the_second_goes_of_a_crowd_all() -> None:
    pair = worded("左上角有红色按钮和三行小字", "左上角有红色按钮和三行大字")
    assert find_alike(pair, [], Crowds(near=0.7), last=False) == {1: BadReason.ALIKE}
    crowd = worded(*(f"左上角有红色按钮和三行{c}字" for c in "大小黑白"))
    everyone = dict.fromkeys(range(4), BadReason.ALIKE)
    assert find_alike(crowd, [], Crowds(near=0.7), last=False) == everyone
    assert find_alike(crowd, [], Crowds(near=0.7), last=True) == dict.fromkeys((1, 2, 3), BadReason.ALIKE)


def test_what_stands_is_not_judged_again() -> None:
    standing = worded("左上角有红色按钮和三行小字")
    fresh = worded("左上角有红色按钮和三行小字", "写着退回银行卡尾号3321")
    for last in (False, True):
        assert find_alike(fresh, standing, Crowds(), last=last) == {0: BadReason.ALIKE}


def test_alike_across_classes_too() -> None:
    fresh = [Worded("左上角有红色按钮和三行小字", "a"), Worded("左上角有红色按钮和三行小字", "b")]
    assert find_alike(fresh, [], Crowds(), last=False) == {1: BadReason.ALIKE}


ENDS = (
    "红色按钮",
    "撤销申请",
    "银行卡号",
    "三个节点",
    "倒计时钟",
    "商家头像",
    "退回余额",
    "联系电话",
    "快递单号",
    "付款时间",
)


@pytest.mark.parametrize("last", [False, True])
def test_crowded_openings(last: bool) -> None:
    same = worded(*(f"从图中可以看到{end}" for end in ENDS))
    others = [Worded(f"{end}有{i}{end[::-1]}", "a") for i, end in enumerate(ENDS)]
    bad = find_alike(same + others, [], Crowds(opening_share=0.15), last=last)
    expected = range(3, 10) if last else range(10)
    assert bad == dict.fromkeys(expected, BadReason.BEGINS_ALIKE)
    assert find_alike(same[:3] + others, [], Crowds(), last=last) == {}


def test_an_opening_may_be_spread_over_the_classes_but_not_over_all_the_set() -> None:
    spread = [Worded(f"从图中可以看到{end}", str(i)) for i, end in enumerate(ENDS)]
    assert set(find_alike(spread, [], Crowds(), last=False).values()) == {BadReason.BEGINS_ALIKE}
    assert find_alike(spread[:9], [], Crowds(), last=False) == {}


def test_diversity_in_figures() -> None:
    found = diversity(["甲乙", "甲乙", "丙，丁"])
    assert (found.count, found.most_chars) == (3, 3)
    assert found.distinct_1 == 4 / 6
    assert found.distinct_2 == 2 / 3
    assert found.near_duplicates == 2 / 3
    assert found.mean_chars == 7 / 3
    assert diversity([]).count == 0


def test_of_a_crowd_the_first_stays_when_nothing_is_asked_again() -> None:
    crowd = {f"a{i}": one for i, one in enumerate(worded(*(f"左上角有红色按钮和三行{c}字" for c in "大小黑白")))}
    copies = {"b0": Worded("写着退回银行卡尾号3321", "b"), "c0": Worded("写着退回，银行卡尾号3321", "c")}
    assert crowded_out(crowd | copies, Crowds()) == {"a1", "a2", "a3", "c0"}
    assert crowded_out({}, Crowds()) == set()
