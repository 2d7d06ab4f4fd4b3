"""Models that predict the items out of fold, taught by the noisy labels: some simulated, some really trained.

The trained ones are scikit-learn's on blurred features with 5 folds, so that no formula of ours says what they return.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from tests.benchmarks.correction.latent import Floats, Ints, Items, choose, log_odds, softmax

Kind = Literal["simulated", "zero-shot", "logistic", "network", "forest", "neighbours", "bayes"]
FOLDS = 5


@dataclass(frozen=True)
class Student:
    """One model.

    `blur`: how badly it sees (0.5 strong, 1.2 middling, 3 bad; two classes are about six apart). `shared`: the part of
    that blur which it has in common with people; `kin`: with the first model of the set; both are shares of variance.
    `pull`: of a simulated one, how far its class probabilities follow the noise. `temperature`: below 1 over-confident,
    above 1 under-confident. `mistakes`: it takes nearly all of this many classes for another one, sure of itself.
    """

    kind: Kind = "simulated"
    blur: float = 0.8
    shared: float = 0.2
    kin: float = 0.0
    pull: float = 0.5
    temperature: float = 1.0
    mistakes: int = 0


@dataclass(frozen=True)
class Predicted:
    """`probabilities` [N, C], rows sum to 1; `folds` [N], which fold each item was in, where that is known."""

    probabilities: Floats
    folds: Ints | None = None


def predict(rng: np.random.Generator, student: Student, items: Items, given: Ints, first: Floats) -> Predicted:
    """Out-of-fold probabilities; `first` [N, D] is the first model's own blur, as unit normal noise."""
    own = rng.normal(size=items.features.shape)
    rest = max(0.0, 1 - student.shared - student.kin)
    blur = np.sqrt(student.shared) * items.hint + np.sqrt(student.kin) * first + np.sqrt(rest) * own
    view = items.features + student.blur * blur
    folds = None
    if student.kind in ("simulated", "zero-shot"):
        probabilities = _simulated(rng, student, items, given, view)
    else:
        probabilities, folds = _trained(rng, student, len(items.centres), given, view)
    for wrong in range(student.mistakes):
        other = (wrong + 1 + student.mistakes) % len(items.centres)
        probabilities[:, other] += 0.95 * probabilities[:, wrong]
        probabilities[:, wrong] *= 0.05
    logits = np.log(np.clip(probabilities, 1e-9, None)) / student.temperature
    return Predicted(softmax(logits), folds)


def _simulated(rng: np.random.Generator, student: Student, items: Items, given: Ints, view: Floats) -> Floats:
    """Bayes with slightly wrong centres; what was learned from noisy labels leaks into every probability."""
    classes = len(items.centres)
    learned = items.centres + rng.normal(size=items.centres.shape) * 0.3
    logits = log_odds(view, learned, float(np.sqrt(1 + student.blur**2)))
    if student.kind == "zero-shot":
        return _lost(rng, softmax(logits), items)
    logits += np.log(np.bincount(given, minlength=classes) + 1)
    clean = softmax(logits)
    counts = np.full((classes, classes), 1e-3)
    usable = items.usable
    np.add.at(counts, (items.truth[usable], given[usable]), 1)
    noisy = clean @ (counts / counts.sum(1, keepdims=True))
    return _lost(rng, (1 - student.pull) * clean + student.pull * noisy, items)


def _lost(rng: np.random.Generator, probabilities: Floats, items: Items) -> Floats:
    """On unusable items one half of the answers is diffuse and the other arbitrary."""
    rows = np.flatnonzero(~items.usable)
    classes = probabilities.shape[1]
    diffuse = 0.3 * probabilities[rows] + 0.7 / classes
    arbitrary = np.full((len(rows), classes), 0.3 / classes)
    arbitrary[np.arange(len(rows)), choose(rng, np.ones_like(arbitrary))] += 0.7
    probabilities[rows] = np.where(rng.random((len(rows), 1)) < 0.5, diffuse, arbitrary)
    return probabilities


def _trained(
    rng: np.random.Generator, student: Student, classes: int, given: Ints, view: Floats
) -> tuple[Floats, Ints]:
    """K-fold with the noisy labels; a class that is missing in training gets 0."""
    seed = int(rng.integers(2**31))
    probabilities, folds = np.zeros((len(given), classes)), np.zeros(len(given), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # A class with fewer given labels than folds is fine: it is then missing in some.
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (seen, left) in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(view, given)):
            model = _model(student.kind, seed).fit(view[seen], given[seen])
            probabilities[np.ix_(left, model.classes_)] = model.predict_proba(view[left])
            folds[left] = fold
    return probabilities, folds


def _model(kind: Kind, seed: int) -> Any:
    """One of scikit-learn's classifiers; they have no common type with `fit` and `predict_proba`."""
    if kind == "logistic":
        return LogisticRegression(max_iter=200)
    if kind == "network":
        # No early stopping and little decay: it learns some of the noise by heart, as a fine-tuned model does.
        return MLPClassifier((48,), alpha=1e-5, max_iter=80, random_state=seed)
    if kind == "forest":
        return RandomForestClassifier(60, min_samples_leaf=2, random_state=seed)
    if kind == "neighbours":
        return KNeighborsClassifier(15, weights="distance")
    return GaussianNB()
