from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dataset.merge_plan import hold_out_groups


def test_each_label_gives_its_share_but_a_rare_one_none() -> None:
    labels = np.array([0] * 100 + [1] * 50 + [2] * 10 + [3], dtype=np.int64)
    held = hold_out_groups(labels, np.arange(161), 0.1, seed=1)
    assert Counter(labels[held].tolist()) == {0: 10, 1: 5, 2: 1}
    assert not np.array_equal(held, hold_out_groups(labels, np.arange(161), 0.1, seed=2))
    assert not hold_out_groups(labels, np.arange(161), 0.0, seed=1).any()
    assert len(hold_out_groups(labels[:0], labels[:0], 0.1, seed=1)) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=200), st.floats(0.01, 0.5))
def test_groups_are_whole_and_every_label_stays_in_training(items: list[tuple[int, int]], share: float) -> None:
    labels, groups = np.array(items, dtype=np.int64).T
    held = hold_out_groups(labels, groups, share, seed=0)
    assert not {int(g) for g in groups[held]} & {int(g) for g in groups[~held]}
    first = {int(g): int(labels[np.flatnonzero(groups == g)[0]]) for g in groups}
    sizes = Counter(first.values())
    chosen = Counter(first[g] for g in {int(g) for g in groups[held]})
    for label, size in sizes.items():
        assert chosen[label] < size
        assert chosen[label] <= share * size + 1
    wanted = sum(share * size for size in sizes.values())
    assert sum(chosen.values()) <= round(wanted)
