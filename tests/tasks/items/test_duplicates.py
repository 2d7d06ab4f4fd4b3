from collections.abc import Callable, Collection
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.items.duplicates import (
    Item,
    find_grown_dialogues,
    find_near_duplicates,
    find_near_pairs,
    find_shown_images,
    group_linked,
    is_near,
    make_comparable_item,
)
from tasks.items.image_hashes import ImageHashes
from tasks.items.signatures import compute_signatures, normalise_text
from tasks.media import ImageRef
from tasks.records import Sample
from tests.tasks.items.test_image_hashes import crop, make_screen, save
from tests.tasks.making import image, sample

ASKS = "用户: 上周买的这件外套我穿着有点小，想换大一号的，可是页面上找不到换货的入口，请问我要怎么申请才好？订单12345"
ASKS_TOO = "用户: 上周买的这件外套我穿着有点小，想换大一号，可是页面上找不到换货入口，请问我要怎么申请才好？订单9"
OTHER = "用户: 快递三天没有更新了，麻烦查一下现在到底走到哪里，谢谢。"


def find_pairs(
    samples: list[Sample], evaluation: int = 0, image_hashes: ImageHashes | None = None
) -> list[tuple[int, int]]:
    def fetch(places: Collection[int]) -> dict[int, Item]:
        return {place: make_comparable_item(samples[place]) for place in places}

    return find_near_pairs(compute_signatures(samples, image_hashes or ImageHashes()), len(samples) - evaluation, fetch)


def test_numbers_case_width_and_white_space_do_not_count() -> None:
    assert normalise_text(sample("a", "用户:  我要 ABC\n", "花了１２３元")) == "用户: 我要 abc 花了0元"
    assert normalise_text(sample("a", image())) == ""


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param("买了3件共128元", "买了4件共95元", True, id="numbers"),
        pytest.param(ASKS, ASKS_TOO, False, id="three words, no image"),
        pytest.param(ASKS, ASKS.replace("申请", "办理"), True, id="one word in fifty, no image"),
        pytest.param("裙子什么时候发货", "外套什么时候发货", False, id="a short text about another thing"),
        pytest.param(ASKS, OTHER, False, id="other"),
        pytest.param(ASKS, ASKS * 2, True, id="said twice"),
        pytest.param(ASKS, ASKS + OTHER, False, id="and went on"),
    ],
)
def test_texts_without_images(one: str, other: str, expected: bool) -> None:
    samples = [sample("x", OTHER + "另外"), sample("a", one), sample("b", other)]
    assert is_near(make_comparable_item(samples[1]), make_comparable_item(samples[2])) is expected
    assert ((1, 2) in find_pairs(samples)) is expected


def test_image_and_text_are_judged_together(tmp_path: Path) -> None:
    first = save(tmp_path, "a.png", make_screen(1))
    copy = save(tmp_path, "a.jpg", make_screen(1).resize((90, 140)), quality=60)
    second = save(tmp_path, "b.png", make_screen(2))

    def is_pair(one: tuple[str | ImageRef, ...], other: tuple[str | ImageRef, ...]) -> bool:
        return find_pairs([sample("a", *one), sample("b", *other)]) == [(0, 1)]

    assert is_pair((ASKS, first), (ASKS_TOO, copy))
    assert is_pair((first,), (copy,))
    assert is_pair(("看图", first, second), ("看图", copy, second))
    assert not is_pair((ASKS, first), (ASKS, second))
    assert not is_pair((ASKS, first), (OTHER, copy))
    assert not is_pair((ASKS, first), (ASKS,))
    assert not is_pair(("看图", first, second), ("看图", second, first))
    assert not is_pair((first,), (second,))


def test_crops_are_looked_for_against_the_evaluation_split(tmp_path: Path) -> None:
    samples = [
        sample(f"{i}", save(tmp_path, f"{i}.jpg", crop(make_screen(i), 0.03, 0.03, 0, 0.03), quality=80))
        for i in range(12)
    ]
    held_out = [sample(f"e{i}", save(tmp_path, f"e{i}.png", make_screen(i))) for i in range(6)]
    assert find_pairs([*samples, *held_out], evaluation=6) == [(i, 12 + i) for i in range(6)]


def test_pictures_are_found_whatever_is_said(tmp_path: Path) -> None:
    held_out = [save(tmp_path, f"{i}.png", make_screen(i)) for i in range(3)]
    copy = save(tmp_path, "copy.jpg", crop(make_screen(1), 0, 0.03, 0, 0), quality=80)
    other, gone = save(tmp_path, "other.png", make_screen(9)), image("gone")
    assert find_shown_images([other, copy, held_out[2], gone], held_out, ImageHashes()) == {"copy.jpg", "2.png"}
    assert find_shown_images([gone], [gone], ImageHashes()) == {"gone"}
    assert find_shown_images([], held_out, ImageHashes()) == find_shown_images([other], [], ImageHashes()) == set()


def test_evaluation_items_are_not_compared_with_each_other() -> None:
    assert find_pairs([sample("x", OTHER), sample("e", ASKS + "1"), sample("f", ASKS + "2")], evaluation=2) == []


def test_an_evaluation_item_that_is_in_the_pool_still_finds_its_other_copies(tmp_path: Path) -> None:
    whole = save(tmp_path, "a.png", make_screen(1))
    cut = save(tmp_path, "b.png", crop(make_screen(1), 0.03, 0.03, 0.03, 0.03))
    assert (1, 2) in find_pairs([sample("p", whole), sample("q", cut), sample("e", whole)], evaluation=1)


def test_an_unreadable_image_makes_an_item_near_nothing() -> None:
    gone = image("gone")
    assert find_pairs([sample("a", ASKS, gone), sample("b", ASKS + "!", gone)]) == []


def test_copies_make_one_pair_each_whatever_their_label() -> None:
    samples = [sample(f"s{i}", ASKS, image("gone")) for i in range(5)]
    assert find_near_duplicates(samples, ImageHashes()) == [(0, i) for i in range(1, 5)]
    others = [sample("a", ASKS), sample("b", OTHER), sample("c", ASKS + "。", given="查询物流"), sample("d", OTHER)]
    assert find_near_duplicates(others, ImageHashes()) == [(0, 2), (1, 3)]
    assert find_near_duplicates([], ImageHashes()) == []


def test_every_near_pair_among_many_is_found() -> None:
    rng = Random(3)
    han = "我你他这那有没想要退换货款衣鞋包快慢大小多少天地人和之上下来去开关问答"
    texts = ["".join(rng.choices(han, k=rng.randint(30, 200))) for _ in range(300)]
    changed = [text[: len(text) // 2] + "。" + text[len(text) // 2 + 1 :] for text in texts]
    samples = [sample(f"{i}", text) for i, text in enumerate([*texts, *changed])]
    expected = [
        (i, i + 300)
        for i in range(300)
        if is_near(make_comparable_item(samples[i]), make_comparable_item(samples[i + 300]))
    ]
    found = find_pairs(samples)
    assert len(expected) > 250
    assert set(found) <= set(expected)
    assert len(found) >= 0.99 * len(expected)


def test_a_crowd_of_one_greeting_costs_little_and_still_hangs_together() -> None:
    samples = [sample(f"{i}", f"用户: 你好，请问订单{i}什么时候可以发货呢，等了很久了，麻烦尽快") for i in range(500)]
    found = find_pairs(samples)
    assert len(found) < 500 * 65
    assert {j for _, j in found} | {0} == set(range(500))


@pytest.mark.parametrize("held_out", [1, 100])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(lambda i: "", id="equal but for the number"),
        pytest.param(lambda i: chr(0x4E00 + i), id="each of another name"),
    ],
)
def test_no_item_of_a_crowd_that_is_near_an_evaluation_item_is_missed(
    held_out: int, name: Callable[[int], str]
) -> None:
    samples = [sample(f"{i}", f"用户: 我是{name(i)}，{ASKS}{i}") for i in range(200 + held_out)]
    items = [make_comparable_item(s) for s in samples]
    expected = {i for i in range(200) if any(is_near(items[i], item) for item in items[200:])}
    found = find_pairs(samples, evaluation=held_out)
    assert expected == set(range(200))
    assert {i for i, j in found if j >= 200} == expected
    assert len(found) == len(set(found))
    assert all(is_near(items[i], items[j]) and i < min(j, 200) for i, j in found)


def test_a_short_text_of_which_there_are_many_is_found_in_all_of_them() -> None:
    samples = [sample(f"{i}", f"用户: 订单{i}") for i in range(150)] + [sample("x", OTHER), sample("e", "用户: 订单8")]
    assert {i for i, j in find_pairs(samples, evaluation=1) if j == 151} == set(range(150))


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
        pytest.param(BEGUN, (BEGUN[0], BEGUN[1] + "请"), False, id="continues within the line"),
        pytest.param(BEGUN, (BEGUN[1], BEGUN[0]), False, id="another order"),
    ],
)
def test_which_dialogue_begins_another(
    one: tuple[str | ImageRef, ...], other: tuple[str | ImageRef, ...], linked: bool
) -> None:
    short, long = sample("a", *one), sample("b", *other)
    assert find_grown_dialogues([short, sample("x", OTHER), long]) == ([(0, 2)] if linked else [])
    back = [(1, 0)] if linked and one != other else [(0, 1)] if linked else []
    assert find_grown_dialogues([long, short]) == back


LINES = ("用户: 一二三四五六七", "客服: 甲乙丙丁戊己庚", "用户: 天地玄黄宇宙洪")


@given(st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=4), max_size=12))
def test_links_hang_together_what_begins_alike(dialogues: list[list[str]]) -> None:
    samples = [sample(f"s{i}", "\n".join(lines)) for i, lines in enumerate(dialogues)]
    home = list(range(len(samples)))
    for a, b in find_grown_dialogues(samples):
        assert dialogues[b][: len(dialogues[a])] == dialogues[a] and len(dialogues[a]) >= 2
        home = [home[a] if h == home[b] else h for h in home]
    for i, one in enumerate(dialogues):
        for j, other in enumerate(dialogues):
            if len(one) >= 2 and other[: len(one)] == one:
                assert home[i] == home[j]


def test_a_dialogue_grows_through_many_items() -> None:
    lines = [f"用户: 第{n}句话，说的都是同一件外套。" for n in range(9)]
    samples: list[Sample] = [sample(f"s{n}", *(f"\n{line}" for line in lines[: n + 1])) for n in range(9)]
    assert find_grown_dialogues(samples) == [(n, n + 1) for n in range(9 - 1) if n]


def test_items_linked_through_others_are_one_group() -> None:
    groups = group_linked(6, [(0, 3), (3, 5), (1, 2)])
    assert groups[0] == groups[3] == groups[5]
    assert groups[1] == groups[2]
    assert len({int(groups[i]) for i in (0, 1, 4)}) == 3
    assert group_linked(3, []).tolist() == [0, 1, 2]
