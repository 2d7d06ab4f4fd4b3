"""The second set of planted reasons is what it says it is: counts, ids, lengths, and how alike its reasons are."""

import functools
import re
from collections import Counter, defaultdict
from itertools import combinations

from tests.second_reason_good import jaccard, pairs
from tests.second_reasons import Kind, Planted, planted


@functools.cache
def _all() -> list[Planted]:
    return planted()


def _of(kind: Kind | None) -> list[Planted]:
    return [p for p in _all() if p.kind is kind]


def test_counts_ids_and_labels() -> None:
    assert Counter(p.kind for p in _all()) == {None: 600} | dict.fromkeys(Kind, 100)
    assert len({p.sample.id for p in _all()}) == 1200
    assert all(p.label in p.sample.labels for p in _all())
    assert len({p.label for p in _of(None)}) == 18


def test_the_same_call_gives_the_same_list() -> None:
    assert planted() == _all()


def test_good_reasons_are_of_a_fit_length_and_far_from_each_other() -> None:
    assert all(6 <= len(p.reason) <= 50 for p in _of(None))
    texts = [pairs(p.reason) for p in _of(None)]
    assert max(jaccard(a, b) for a, b in combinations(texts, 2)) <= 0.45


def test_no_good_reason_is_near_a_bad_one() -> None:
    bad = [pairs(p.reason) for p in _all() if p.kind]
    assert max(jaccard(pairs(p.reason), b) for p in _of(None) for b in bad) <= 0.45


def test_no_good_reason_names_another_label() -> None:
    for p in _of(None):
        assert not [label for label in p.sample.labels if label != p.label and label in p.reason], p.reason


def test_a_family_is_alike_within_itself_only() -> None:
    families = defaultdict[int | None, list[Planted]](list)
    for p in _of(Kind.ALIKE):
        families[p.family].append(p)
    assert None not in families and all(5 <= len(f) <= 8 for f in families.values())
    for members in families.values():
        assert len({p.label for p in members}) == 1
        assert min(jaccard(pairs(a.reason), pairs(b.reason)) for a, b in combinations(members, 2)) >= 0.5
    for one, other in combinations(families.values(), 2):
        assert max(jaccard(pairs(a.reason), pairs(b.reason)) for a in one for b in other) <= 0.45


def test_bad_reasons_are_bad_as_they_say() -> None:
    for p in _of(Kind.OTHER_LABEL):
        assert [label for label in p.sample.labels if label != p.label and label in p.reason], p.reason
    for p in _of(Kind.LENGTH):
        # between the two bounds stands only the label again
        assert len(p.reason) > 50 or len(p.reason) <= 3 or (p.label in p.reason and len(p.reason) <= 14), p.reason
    for p in _of(Kind.LANGUAGE):
        assert re.search("[A-Za-z]{3}|[ぁ-んァ-ヶ]|[가-힣]", p.reason), p.reason


def test_only_long_ones_are_too_long() -> None:
    assert not [p.reason for p in _all() if p.kind is not Kind.LENGTH and len(p.reason) > 50]
