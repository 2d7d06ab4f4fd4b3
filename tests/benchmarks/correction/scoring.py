"""Figures of a rule on a set whose truth is known."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve

from tests.benchmarks.correction.latent import NEITHER, Floats, Ints

Flags = NDArray[np.bool_]


def f1(flags: Flags, wrong: Flags) -> float:
    """Of finding what is wrong; NaN where nothing is."""
    if not wrong.any():
        return float("nan")
    return float(2 * (flags & wrong).sum() / (flags.sum() + wrong.sum()))


def average_precision(ranking: Floats, wrong: Flags) -> float:
    """Of the ranking, highest first; NaN where nothing is wrong."""
    return float(average_precision_score(wrong, ranking)) if wrong.any() else float("nan")


def best_f1(ranking: Floats, wrong: Flags) -> float:
    """F1 at the threshold that the truth shows to be the best; NaN where nothing is wrong."""
    if not wrong.any():
        return float("nan")
    precision, recall, _ = precision_recall_curve(wrong, ranking)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def accuracy(labels: Ints, truth: Ints) -> float:
    """Share of the usable items whose final label is right; a usable item that was dropped counts as wrong.

    Unusable items (`truth` is NEITHER) are left out: no label of theirs could be right.
    """
    usable = truth != NEITHER
    return float((labels == truth)[usable].mean())


def points(after: float, before: float) -> float:
    """Change in percentage points."""
    return 100 * (after - before)


def mean(values: list[float]) -> float:
    """Of those that are not NaN; NaN where all are."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
