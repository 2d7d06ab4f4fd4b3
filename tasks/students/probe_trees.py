"""Extremely randomised trees by scikit-learn, stored as arrays, because scikit-learn itself stores pickles."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier

Array = np.ndarray[Any, Any]

_TREES = 100
_SMALLEST_LEAF = 3
_FEATURES_PER_SPLIT = 0.1
"""Share of the features among which a split is chosen: twice the usual square root, since few of 960 tell much."""
_FLOOR = 0.01
"""Added to probabilities before their logarithm is taken."""


def fit_trees(rows: Array, targets: Array, classes: int, seed: int) -> dict[str, Array]:
    """Fit trees to `rows` (items × features), and return them as arrays with an element per node of all trees.

    The features, thresholds and children are those of inner nodes; the shares of the classes are those of leaves.
    """
    forest: Any = ExtraTreesClassifier(
        _TREES,
        min_samples_leaf=_SMALLEST_LEAF,
        max_features=_FEATURES_PER_SPLIT,  # pyright: ignore[reportArgumentType]
        random_state=seed,
        n_jobs=-1,
    )
    forest.fit(rows, targets)
    trees = [estimator.tree_ for estimator in forest.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    shares = np.zeros((int(starts[-1]), classes), np.float16)
    shares[:, forest.classes_] = np.concatenate([tree.value[:, 0] for tree in trees])
    children = [(tree.children_left, tree.children_right) for tree in trees]
    moved = [
        np.where(np.array(both) < 0, -1, np.array(both) + start) for both, start in zip(children, starts, strict=False)
    ]
    return {
        "tree roots": starts[:-1].astype(np.int32),
        "tree children": np.concatenate(moved, axis=1).astype(np.int32),
        "tree features": np.concatenate([tree.feature for tree in trees]).astype(np.int16),
        "tree thresholds": np.concatenate([tree.threshold for tree in trees]),
        "tree shares": shares,
    }


def score_by_trees(trees: Mapping[str, Array], rows: Array) -> Array:
    """Return the log of the mean class shares, items × classes, for `rows` (items × features)."""
    left, right = trees["tree children"]
    features, thresholds = trees["tree features"], trees["tree thresholds"]
    items = np.arange(len(rows))
    total = np.zeros((len(rows), trees["tree shares"].shape[1]))
    for root in trees["tree roots"]:
        node = np.full(len(rows), root)
        while (inner := left[node] >= 0).any():
            at, item = node[inner], items[inner]
            goes_left = rows[item, features[at]] <= thresholds[at]
            node[inner] = np.where(goes_left, left[at], right[at])
        total += trees["tree shares"][node]
    return np.log(total / len(trees["tree roots"]) + _FLOOR)
