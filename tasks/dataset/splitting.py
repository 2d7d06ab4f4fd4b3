"""Which part of the emitted set is held out for validation: stratified by label, groups undivided."""

import numpy as np
from numpy.typing import NDArray


def validation_part(labels: NDArray[np.int64], groups: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """[N] True for items held out: of each label (a number an item) about `share` of its groups, whole.

    A group counts as its first item's label. A label with a single group stays in training, and each label keeps at
    least one group there. scikit-learn's StratifiedGroupKFold loops over groups in Python, which takes minutes at a
    million, and its StratifiedShuffleSplit refuses labels with one item; hence this.
    """
    held = np.zeros(len(groups), bool)
    if not len(groups) or share <= 0:
        return held
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    by_label = order[np.argsort(labels[first][order], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[first][by_label], prepend=-1))
    sizes = np.diff(np.append(starts, len(by_label)))
    wanted = _apportioned(sizes, share)
    rank = np.arange(len(by_label)) - np.repeat(starts, sizes)
    chosen = np.zeros(len(first), bool)
    chosen[by_label[rank < np.repeat(wanted, sizes)]] = True
    return chosen[group]


def _apportioned(sizes: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """How many of each size, `share` of their sum in all, the largest remainders rounded up."""
    exact = sizes * share
    wanted = np.floor(exact).astype(np.int64)
    more = round(float(exact.sum())) - int(wanted.sum())
    wanted[np.argsort(wanted - exact, kind="stable")[:more]] += 1
    return np.minimum(wanted, sizes - 1)
