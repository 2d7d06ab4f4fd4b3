"""What the planted reasons promise of themselves."""

import re
from collections import Counter

import pytest

from tests.planted_reason_sets import FAMILIES
from tests.planted_reasons import ALIKE, EACH, GOOD, LIMIT, BadKind, Planted, judge, likeness, planted

_HAN, _KANA = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[\u3040-\u30ff]")
_QUOTED = re.compile("“[^”]*”")


@pytest.fixture(scope="module")
def reasons() -> list[Planted]:
    return planted()


def test_numbers_ids_and_labels(reasons: list[Planted]):
    counts = Counter(item.kind for item in reasons)
    assert counts == {None: GOOD} | dict.fromkeys(BadKind, EACH)
    assert len({item.sample.id for item in reasons}) == len(reasons)
    assert all(item.label == item.sample.given and item.label in item.sample.labels for item in reasons)
    assert min(Counter(item.label for item in reasons if item.kind is None).values()) >= 25


def test_the_same_every_time(reasons: list[Planted]):
    assert planted() == reasons


def test_only_the_length_kind_breaks_the_limit(reasons: list[Planted]):
    for item in reasons:
        bare = item.reason.replace(item.label, "")
        if item.kind is BadKind.LENGTH:
            assert len(item.reason) > LIMIT or len(bare) <= 4, item
        else:
            assert 6 <= len(item.reason) <= LIMIT, item


def test_only_the_language_kind_is_not_chinese(reasons: list[Planted]):
    for item in reasons:
        foreign = bool(_KANA.search(item.reason)) or len(_HAN.findall(item.reason)) < len(item.reason) / 4
        assert foreign == (item.kind is BadKind.LANGUAGE), item


def test_only_the_other_label_kind_names_one_unquoted(reasons: list[Planted]):
    for item in reasons:
        said = _QUOTED.sub("", item.reason)
        others = [label for label in item.sample.labels if label != item.label and label in said]
        if item.kind is BadKind.OTHER_LABEL:
            assert others, item
        else:
            assert not others or "不申请退款" in said, item


def test_unalike_but_within_families(reasons: list[Planted]):
    rest = [item.reason for item in reasons if item.kind is None]
    assert max(likeness(a, b) for i, a in enumerate(rest) for b in rest[:i]) <= ALIKE
    for number, family in enumerate(FAMILIES):
        kin = {item.reason for item in reasons if item.family == number}
        assert len(kin) == family.size
        assert all(max(likeness(a, b) for b in kin - {a}) > ALIKE for a in kin)


def test_one_of_a_family_may_pass(reasons: list[Planted]):
    bad = {item.sample.id for item in reasons if item.kind}
    kin = [item for item in reasons if item.family == 0]
    good = next(item for item in reasons if item.kind is None)
    leak = next(item for item in reasons if item.kind is BadKind.LEAKAGE)
    assert judge(reasons, bad) == ([], [])
    assert judge(reasons, bad - {kin[0].sample.id}) == ([], [])
    assert len(judge(reasons, bad - {kin[0].sample.id, kin[1].sample.id})[0]) == 1
    assert judge(reasons, bad - {leak.sample.id} | {good.sample.id}) == ([leak], [good])
