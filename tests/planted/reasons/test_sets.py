"""What the four sets of planted reasons promise of themselves."""

import re
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from tests.planted.reasons.author1 import reasons as author1
from tests.planted.reasons.author2 import reasons as author2
from tests.planted.reasons.author3 import reasons as author3
from tests.planted.reasons.author4 import reasons as author4
from tests.planted.reasons.counting import EACH, GOOD, BadKind, Planted, jaccard, judge, pairs

AUTHORS = {"author 1": author1, "author 2": author2, "author 3": author3, "author 4": author4}
SETS = {name: author.planted() for name, author in AUTHORS.items()}
LIMIT = 50
# One kana is Japanese already: they stand singly between Han characters.
FOREIGN = re.compile("[\u3041-\u30ff\uac00-\ud7a3]|[^\\W\\d_\u4e00-\u9fff]{2}")
every_set = pytest.mark.parametrize("items", SETS.values(), ids=SETS)


@every_set
def test_numbers_ids_and_labels(items: list[Planted]) -> None:
    assert Counter(item.kind for item in items) == {None: GOOD} | dict.fromkeys(BadKind, EACH)
    assert len({item.sample.id for item in items}) == len(items)
    assert all(item.label in item.sample.labels for item in items)
    assert len({item.label for item in items if item.kind is None}) == 18


def test_the_same_every_time() -> None:
    assert author1.planted() == SETS["author 1"]
    assert author2.planted() == SETS["author 2"]


@every_set
def test_only_the_length_kind_is_too_long_or_the_label_again(items: list[Planted]) -> None:
    for item in items:
        if item.kind is BadKind.LENGTH:
            bare = item.reason.replace(item.label, "")
            assert len(item.reason) > LIMIT or len(bare) <= 4, item
        else:
            assert len(item.reason) <= LIMIT, item
            assert item.kind is not None or len(item.reason) >= 6, item


@every_set
def test_the_language_kind_is_foreign_and_the_other_label_kind_names_one(items: list[Planted]) -> None:
    for item in items:
        if item.kind is BadKind.LANGUAGE:
            assert FOREIGN.search(item.reason), item
        if item.kind is BadKind.OTHER_LABEL:
            assert [label for label in item.sample.labels if label != item.label and label in item.reason], item


@every_set
def test_good_ones_are_unlike_each_other_and_families_are_alike(items: list[Planted]) -> None:
    good = [pairs(item.reason) for item in items if item.kind is None]
    assert max(jaccard(a, b) for a, b in combinations(good, 2)) <= 0.45
    families = defaultdict[int, list[Planted]](list)
    for item in items:
        assert (item.family is not None) == (item.kind is BadKind.ALIKE)
        if item.family is not None:
            families[item.family].append(item)
    for family in families.values():
        assert 5 <= len(family) <= 8
        assert len({item.label for item in family}) == 1
        for item in family:
            kin = [pairs(other.reason) for other in family if other is not item]
            assert max(jaccard(pairs(item.reason), other) for other in kin) > 0.45, item


def test_one_of_a_family_may_pass() -> None:
    items = SETS["author 1"]
    bad = {item.sample.id for item in items if item.kind}
    kin = [item for item in items if item.family == 0]
    good = next(item for item in items if item.kind is None)
    leak = next(item for item in items if item.kind is BadKind.LEAKAGE)
    assert judge(items, bad) == ([], [])
    assert judge(items, bad - {kin[0].sample.id}) == ([], [])
    assert len(judge(items, bad - {kin[0].sample.id, kin[1].sample.id})[0]) == 1
    assert judge(items, bad - {leak.sample.id} | {good.sample.id}) == ([leak], [good])
