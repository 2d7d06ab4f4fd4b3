import itertools
import random
import tracemalloc
from collections.abc import Callable, Sequence

import pytest

from tasks.rationales.diversity import MarkedReason, find_alike, find_crowded_out, measure_diversity
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words import BadReason


def make_reasons(*texts: str, label: str = "a") -> list[MarkedReason]:
    return [MarkedReason(text, label) for text in texts]


def jaccard(a: str, b: str) -> float:
    x, y = ({t[i : i + 2] for i in range(len(t) - 1)} | {t[-1:] + "\3"} for t in (a, b))
    return len(x & y) / len(x | y)


def find_neighbours(texts: Sequence[str], least: float) -> list[set[int]]:
    """Of each text the others that are near, by the plain definition."""
    near: list[set[int]] = [set() for _ in texts]
    for i, j in itertools.combinations(range(len(texts)), 2):
        if jaccard(texts[i], texts[j]) >= least - 1e-9:
            near[i].add(j)
            near[j].add(i)
    return near


def find_alike_slowly(fresh: Sequence[str], standing: Sequence[str], least: float, *, last: bool) -> set[int]:
    """Which of `fresh` are ALIKE, pair by pair."""
    near = find_neighbours([*standing, *fresh], least)
    bad: set[int] = set()
    for i in range(len(standing), len(near)):
        if {j for j in near[i] if j < i} - bad or (len(near[i]) > 1 and not last):
            bad.add(i)
    return {i - len(standing) for i in bad}


def draw_texts(rng: random.Random, count: int) -> list[str]:
    """Short texts of few characters, and some with another end, or the same again."""
    texts = ["".join(rng.choice("甲乙丙丁戊") for _ in range(rng.randint(1, 12))) for _ in range(count)]
    texts += [t[:-1] + rng.choice("己庚") if rng.random() < 0.7 else t for t in rng.choices(texts, k=count)]
    return rng.sample(texts, len(texts))


@pytest.mark.parametrize("block", [2, 7, 512])
@pytest.mark.parametrize("least", [0.3, 0.5, 0.8, 1.0])
def test_alike_are_those_of_the_plain_definition(block: int, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.rationales.diversity._BLOCK", block)
    monkeypatch.setattr("tasks.rationales.diversity._OPENING_FEW", 1000)
    settings = RationaleSettings(alike=least)
    rng = random.Random(f"{block} {least}")
    found = 0
    for _ in range(6):
        standing, fresh = draw_texts(rng, rng.randint(0, 5)), draw_texts(rng, rng.randint(1, 15))
        for last in (False, True):
            bad = find_alike_slowly(fresh, standing, least, last=last)
            said = find_alike(make_reasons(*fresh), make_reasons(*standing), settings, last=last)
            assert said == dict.fromkeys(sorted(bad), BadReason.ALIKE)
            found += len(bad)
        firsts = [i for i, text in enumerate(fresh) if text not in fresh[:i]]
        gone = {firsts[i] for i in find_alike_slowly([fresh[i] for i in firsts], [], least, last=True)}
        named = {str(i): one for i, one in enumerate(make_reasons(*fresh))}
        assert find_crowded_out(named, settings) == {str(i) for i in gone | (set(range(len(fresh))) - set(firsts))}
        assert measure_diversity(fresh, least).near_duplicates == sum(map(bool, find_neighbours(fresh, least))) / len(
            fresh
        )
    assert found


def test_commas_width_and_case_are_no_difference() -> None:
    assert measure_diversity(["有ABC，和１２３", "有abc和123。", "别的内容"], 1.0).near_duplicates == 2 / 3


@pytest.mark.parametrize("last", [False, True])
def test_no_copy_stands_beside_what_its_text_is_alike(last: bool) -> None:
    standing, copies = make_reasons("左上角有红色按钮和三行小字"), make_reasons(*["左上角有红色按钮和三行大字"] * 200)
    assert find_alike(copies, standing, RationaleSettings(), last=last) == dict.fromkeys(range(200), BadReason.ALIKE)


TEMPLATED = [f"图中有{i}个红色按钮和{i % 7}行小字写着等待商家处理" for i in range(3000)]
ALL_TEMPLATED = make_reasons(*TEMPLATED)
NAMED = {str(i): MarkedReason(text, "a") for i, text in enumerate(TEMPLATED)}


@pytest.mark.parametrize(
    "judged",
    [
        lambda: len(find_alike(ALL_TEMPLATED, [], RationaleSettings(), last=False)) == 3000,
        lambda: len(find_alike(ALL_TEMPLATED, ALL_TEMPLATED, RationaleSettings(), last=True)) == 3000,
        lambda: len(find_crowded_out(NAMED, RationaleSettings())) == 2999,
        lambda: measure_diversity(TEMPLATED).near_duplicates == 1,
    ],
    ids=["asked again", "beside the same", "crowded out", "diversity"],
)
def test_memory_does_not_grow_with_the_pairs(judged: Callable[[], bool]) -> None:
    measure_diversity(["甲", "乙"])  # what is imported first is not counted
    tracemalloc.start()
    try:
        assert judged()
        assert tracemalloc.get_traced_memory()[1] < 50e6  # 4.5 million pairs: as tuples in a set 560 MB
    finally:
        tracemalloc.stop()


def test_of_a_pair_the_second_goes_of_a_crowd_all() -> None:
    pair = make_reasons("左上角有红色按钮和三行小字", "左上角有红色按钮和三行大字")
    assert find_alike(pair, [], RationaleSettings(alike=0.7), last=False) == {1: BadReason.ALIKE}
    crowd = make_reasons(*(f"左上角有红色按钮和三行{c}字" for c in "大小黑白"))
    everyone = dict.fromkeys(range(4), BadReason.ALIKE)
    assert find_alike(crowd, [], RationaleSettings(alike=0.7), last=False) == everyone
    assert find_alike(crowd, [], RationaleSettings(alike=0.7), last=True) == dict.fromkeys((1, 2, 3), BadReason.ALIKE)


def test_what_stands_is_not_judged_again() -> None:
    standing = make_reasons("左上角有红色按钮和三行小字")
    fresh = make_reasons("左上角有红色按钮和三行小字", "写着退回银行卡尾号3321")
    for last in (False, True):
        assert find_alike(fresh, standing, RationaleSettings(), last=last) == {0: BadReason.ALIKE}


def test_alike_across_classes_too() -> None:
    fresh = [MarkedReason("左上角有红色按钮和三行小字", "a"), MarkedReason("左上角有红色按钮和三行小字", "b")]
    assert find_alike(fresh, [], RationaleSettings(), last=False) == {1: BadReason.ALIKE}


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
    same = make_reasons(*(f"从图中可以看到{end}" for end in ENDS))
    others = [MarkedReason(f"{end}有{i}{end[::-1]}", "a") for i, end in enumerate(ENDS)]
    bad = find_alike(same + others, [], RationaleSettings(opening_share=0.15), last=last)
    expected = range(3, 10) if last else range(10)
    assert bad == dict.fromkeys(expected, BadReason.BEGINS_ALIKE)
    assert find_alike(same[:3] + others, [], RationaleSettings(), last=last) == {}


def test_an_opening_may_be_spread_over_the_classes_but_not_over_all_the_set() -> None:
    spread = [MarkedReason(f"从图中可以看到{end}", str(i)) for i, end in enumerate(ENDS)]
    assert set(find_alike(spread, [], RationaleSettings(), last=False).values()) == {BadReason.BEGINS_ALIKE}
    assert find_alike(spread[:9], [], RationaleSettings(), last=False) == {}


def test_diversity_in_figures() -> None:
    found = measure_diversity(["甲乙", "甲乙", "丙，丁"])
    assert (found.count, found.most_chars) == (3, 3)
    assert found.distinct_1 == 4 / 6
    assert found.distinct_2 == 2 / 3
    assert found.near_duplicates == 2 / 3
    assert found.mean_chars == 7 / 3
    assert measure_diversity([]).count == 0


def test_of_a_crowd_the_first_stays_when_nothing_is_asked_again() -> None:
    crowd = {f"a{i}": one for i, one in enumerate(make_reasons(*(f"左上角有红色按钮和三行{c}字" for c in "大小黑白")))}
    copies = {"b0": MarkedReason("写着退回银行卡尾号3321", "b"), "c0": MarkedReason("写着退回，银行卡尾号3321", "c")}
    assert find_crowded_out(crowd | copies, RationaleSettings()) == {"a1", "a2", "a3", "c0"}
    assert find_crowded_out({}, RationaleSettings()) == set()
