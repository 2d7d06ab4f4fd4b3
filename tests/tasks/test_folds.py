import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.folds import content_digest, group_numbers, make_folds
from tasks.records import Sample
from tests.tasks.making import image, sample

LABELS = ("申请退款", "查询物流", "反馈破损")


def many(count: int) -> list[Sample]:
    return [sample(f"s{i:03}", given=LABELS[i % 3]) for i in range(count)]


def test_every_item_is_in_one_fold_and_labels_are_spread_evenly() -> None:
    folds = make_folds(many(60), 5, seed=0)
    assert sorted(folds.fold_of) == [f"s{i:03}" for i in range(60)]
    assert Counter(folds.fold_of.values()) == dict.fromkeys(range(5), 12)
    for label in range(3):
        spread = Counter(folds.fold_of[f"s{i:03}"] for i in range(label, 60, 3))
        assert set(spread.values()) == {4}


def test_folds_depend_on_the_seed_and_not_on_the_order_of_the_items() -> None:
    samples = [sample(f"s{i:03}", image(str(i // 2)), given=LABELS[i % 3]) for i in range(60)]
    shuffled = random.Random(1).sample(samples, len(samples))
    assert make_folds(samples, 5, seed=0) == make_folds(shuffled, 5, seed=0)
    assert make_folds(samples, 5, seed=0).digest == make_folds(shuffled, 5, seed=0).digest
    assert make_folds(samples, 5, seed=0).digest != make_folds(samples, 5, seed=1).digest


def test_groups_are_joined_by_any_shared_image_and_by_equal_text() -> None:
    samples = [
        sample("a", image("1"), image("2")),
        sample("b", "用户: 一"),
        sample("c", image("3")),
        sample("d", image("2"), "文", image("3")),  # joins a and c
        sample("e", "用户: 一", given="查询物流"),
        sample("f", "用户: 二"),
    ]
    a, b, c, d, e, f = group_numbers(samples)
    assert a == c == d and b == e and len({a, b, f}) == 3
    assert group_numbers([]) == []


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 15), max_size=3), min_size=6, max_size=40), st.integers(0, 3))
def test_no_image_stands_in_two_folds(images: list[set[int]], seed: int) -> None:
    samples = [sample(f"s{i}", f"t{i}", *(image(str(n)) for n in sorted(shown))) for i, shown in enumerate(images)]
    if len(set(group_numbers(samples))) < 3:
        with pytest.raises(ConfigError, match=r"student\.folds"):
            make_folds(samples, 3, seed)
        return
    folds = make_folds(samples, 3, seed)
    assert set(folds.fold_of) == {s.id for s in samples}
    assert set(folds.fold_of.values()) == {0, 1, 2}
    homes: dict[int, set[int]] = {}
    for i, shown in enumerate(images):
        for n in shown:
            homes.setdefault(n, set()).add(folds.fold_of[f"s{i}"])
    assert all(len(home) == 1 for home in homes.values())


def test_rare_labels_are_named() -> None:
    samples = [*many(30), sample("x", given="询问优惠"), sample("y", given="询问优惠")]
    assert make_folds(samples, 5, seed=0).rare == {"询问优惠": 2}


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([], id="nothing"),
        pytest.param([sample(f"s{i}", "用户: 同") for i in range(9)], id="one group"),
        pytest.param([sample(f"s{i}", given=f"label {i}") for i in range(9)], id="all labels rare"),
    ],
)
def test_too_little_for_so_many_folds_is_an_error_that_names_the_key(samples: list[Sample]) -> None:
    with pytest.raises(ConfigError, match=r"student\.folds"):
        make_folds(samples, 3, seed=0)


def test_content_is_what_is_shown_and_said() -> None:
    plain = content_digest(sample("a", "用户: 一", image("1")))
    assert plain == content_digest(sample("b", "用户: 一", image("1", "/elsewhere.png"), given="查询物流"))
    assert plain != content_digest(sample("a", image("1"), "用户: 一"))
    assert plain != content_digest(sample("a", "用户: 一", image("2")))
