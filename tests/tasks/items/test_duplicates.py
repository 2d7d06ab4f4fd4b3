import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.items.duplicates import group_linked, grown_dialogues
from tasks.records import ImageRef, Sample
from tests.tasks.making import image, sample

OTHER = "用户: 快递三天没有更新了，麻烦查一下现在到底走到哪里，谢谢。"
A, Z = image("a"), image("z")
BEGUN = ("用户: 这件外套我穿着有点小，想换大一号的。", "\n客服: 好的，请您拍一下吊牌。")


@pytest.mark.parametrize(
    ("one", "other", "linked"),
    [
        pytest.param(BEGUN, (*BEGUN, "\n用户: 好"), True, id="a turn more"),
        pytest.param(("".join(BEGUN),), (*BEGUN, "\n用户: 好"), True, id="cut otherwise"),
        pytest.param(BEGUN, (*BEGUN, "\n用户: ", A), True, id="a turn and an image more"),
        pytest.param((A, *BEGUN), (A, *BEGUN, "\n用户: 好"), True, id="begins with an image"),
        pytest.param(BEGUN, BEGUN, True, id="the same"),
        pytest.param((A, *BEGUN), (Z, *BEGUN, "\n用户: 好"), False, id="another image"),
        pytest.param(("用户: 你好",), ("用户: 你好", *BEGUN), False, id="too short to say anything"),
        pytest.param((A, Z, "看"), (A, Z, "看", *BEGUN), False, id="images are no text"),
        pytest.param(BEGUN, (BEGUN[0], BEGUN[1] + "请"), False, id="goes on within the line"),
        pytest.param(BEGUN, (BEGUN[1], BEGUN[0]), False, id="another order"),
    ],
)
def test_which_dialogue_begins_another(
    one: tuple[str | ImageRef, ...], other: tuple[str | ImageRef, ...], linked: bool
) -> None:
    short, long = sample("a", *one), sample("b", *other)
    assert grown_dialogues([short, sample("x", OTHER), long]) == ([(0, 2)] if linked else [])
    back = [(1, 0)] if linked and one != other else [(0, 1)] if linked else []
    assert grown_dialogues([long, short]) == back


LINES = ("用户: 一二三四五六七", "客服: 甲乙丙丁戊己庚", "用户: 天地玄黄宇宙洪")


@given(st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=4), max_size=12))
def test_links_hang_together_what_begins_alike(dialogues: list[list[str]]) -> None:
    samples = [sample(f"s{i}", "\n".join(lines)) for i, lines in enumerate(dialogues)]
    home = list(range(len(samples)))
    for a, b in grown_dialogues(samples):
        assert dialogues[b][: len(dialogues[a])] == dialogues[a] and len(dialogues[a]) >= 2
        home = [home[a] if h == home[b] else h for h in home]
    for i, one in enumerate(dialogues):
        for j, other in enumerate(dialogues):
            if len(one) >= 2 and other[: len(one)] == one:
                assert home[i] == home[j]


def test_a_dialogue_grows_through_many_items() -> None:
    lines = [f"用户: 第{n}句话，说的都是同一件外套。" for n in range(9)]
    samples: list[Sample] = [sample(f"s{n}", *(f"\n{line}" for line in lines[: n + 1])) for n in range(9)]
    assert grown_dialogues(samples) == [(n, n + 1) for n in range(9 - 1) if n]


def test_items_linked_through_others_are_one_group() -> None:
    groups = group_linked(6, [(0, 3), (3, 5), (1, 2)])
    assert groups[0] == groups[3] == groups[5]
    assert groups[1] == groups[2]
    assert len({int(groups[i]) for i in (0, 1, 4)}) == 3
    assert group_linked(3, []).tolist() == [0, 1, 2]
