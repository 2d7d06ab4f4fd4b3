"""The third set of planted reasons is what it says it is: counts, ids, lengths, and good ones unlike each other."""

from collections import Counter
from itertools import combinations

from tests.third_reason_marks import jaccard, pairs
from tests.third_reasons import EACH, GOOD, Kind, planted


def test_counts_and_ids() -> None:
    every = planted()
    assert Counter(one.kind for one in every) == {None: GOOD, **dict.fromkeys(Kind, EACH)}
    assert len({one.sample.id for one in every}) == len(every) == 1200
    assert all(one.label in one.sample.labels for one in every)


def test_good_ones_fit_and_are_unlike_each_other() -> None:
    good = [one for one in planted() if one.kind is None]
    assert all(6 <= len(one.reason) <= 50 for one in good)
    close = [(a.reason, b.reason) for a, b in combinations(good, 2) if jaccard(pairs(a.reason), pairs(b.reason)) > 0.45]
    assert close == []


def test_bad_ones_are_bad_in_one_way() -> None:
    for one in planted():
        assert (one.family is not None) == (one.kind is Kind.ALIKE)
        if one.kind is Kind.LENGTH:
            short = len(one.reason) <= 3 or one.label in one.reason
            assert short or len(one.reason) > 50, one.reason
        else:
            assert 4 <= len(one.reason) <= 50, one.reason
        others = [label for label in one.sample.labels if label != one.label and label in one.reason]
        # a good one may name another label's screen as a thing that is seen
        assert one.kind is None or bool(others) == (one.kind is Kind.OTHER_LABEL), one.reason


def test_families_are_of_one_label_and_alike() -> None:
    families: dict[int, list[tuple[str, str]]] = {}
    for one in planted():
        if one.family is not None:
            families.setdefault(one.family, []).append((one.label, one.reason))
    assert all(5 <= len(family) <= 8 for family in families.values())
    for family in families.values():
        assert len({label for label, _ in family}) == 1
        first = pairs(family[0][1])
        assert all(jaccard(first, pairs(reason)) > 0.4 for _, reason in family), family
