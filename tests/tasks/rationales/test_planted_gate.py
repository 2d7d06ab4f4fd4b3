"""The gate against reasons that people planted without having seen it (tests/planted/).

When it first met them it caught 560 of 600 (93.3 %: leakage 82, alike 88, empty 90, the others all) and stopped 4 of
600 good ones. Near-duplicates began at 0.7 then instead of 0.6, and the Chinese lists have been widened since: figures
of today are no longer those of a blind test. The second set, by another author, met that wider gate: it caught 561 of
600 (93.5 %: leakage 78, empty 84, alike 99, the others all) and stopped 6 good ones, before the lists were widened
again. The third caught 563 (93.8 %: leakage 85, alike 88, empty 90) and stopped 3; then `NEAR` went from 0.6 to 0.5.
The fourth, met by the gate of 35aa469, caught 576 (96.0 %: leakage 86, empty 91, alike 99) and stopped 7 good ones;
nothing was changed after it.
"""

from collections import Counter
from types import ModuleType

import pytest

from tasks.packs.pack import load_pack
from tasks.rationales.diversity import MarkedReason, find_alike
from tasks.rationales.gate import LabelledReason, judge_reasons
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words import BadReason
from tests.planted.reasons.author1.reasons import planted
from tests.planted.reasons.author2 import reasons as author2
from tests.planted.reasons.author3 import reasons as author3
from tests.planted.reasons.author4 import reasons as author4
from tests.planted.reasons.counting import EACH, GOOD, BadKind, Planted, judge

ITEMS = planted()


def find_refused(items: list[Planted], *, last: bool = False) -> dict[str, BadReason]:
    explained = [LabelledReason(p.sample, p.label, p.reason) for p in items]
    faults = judge_reasons(explained, load_pack("demo"), RationaleSettings(), last=last)
    return {p.sample.id: fault for p, fault in zip(items, faults, strict=True) if fault is not None}


def test_bad_ones_are_caught_and_good_ones_pass() -> None:
    missed, stopped = judge(ITEMS, find_refused(ITEMS))
    assert len(missed) <= 0.05 * 6 * EACH
    assert len(stopped) <= 0.03 * GOOD
    assert max(Counter(item.kind for item in missed).values(), default=0) <= 0.05 * EACH


def test_most_are_refused_for_what_is_wrong_with_them() -> None:
    faults = find_refused(ITEMS)
    expected = {
        BadKind.LEAKAGE: {BadReason.LEAKS_LABEL},
        BadKind.OTHER_LABEL: {BadReason.NAMES_OTHER_LABEL},
        BadKind.EMPTY: {BadReason.SAYS_NOTHING},
        BadKind.LANGUAGE: {BadReason.OTHER_LANGUAGE},
        BadKind.LENGTH: {BadReason.TOO_SHORT, BadReason.TOO_LONG, BadReason.SAYS_NOTHING},
        BadKind.ALIKE: {BadReason.ALIKE, BadReason.BEGINS_ALIKE},
    }
    for kind, codes in expected.items():
        own = [item for item in ITEMS if item.kind is kind]
        assert sum(faults.get(item.sample.id) in codes for item in own) >= 0.9 * len(own), kind


def test_what_stands_at_the_end_is_not_alike() -> None:
    faults = find_refused(ITEMS, last=True)
    missed, stopped = judge(ITEMS, faults)
    assert len(missed) <= 0.05 * 6 * EACH
    assert len(stopped) <= 0.03 * GOOD
    standing = [MarkedReason(p.reason, p.label) for p in ITEMS if p.sample.id not in faults]
    assert BadReason.ALIKE not in find_alike(standing, [], RationaleSettings(), last=True).values()


@pytest.mark.parametrize("author", [author2, author3, author4])
def test_other_authors_are_caught_too(author: ModuleType) -> None:
    items = author.planted()
    missed, stopped = judge(items, find_refused(items, last=True))
    assert len(missed) <= 0.05 * 6 * EACH
    assert len(stopped) <= 0.03 * GOOD
