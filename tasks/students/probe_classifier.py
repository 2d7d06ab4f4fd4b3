"""The probe's classifier: a logistic regression on weighted features, one row per item, and its calibration.

During the fit all classes have equal weight, however rare they are. The weight of class frequencies and the temperature
of probabilities are then fitted on items held out within the training part. All classes share these two numbers,
because a class with four items has too few for a calibration curve of its own.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from scipy.special import log_softmax
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

Array = np.ndarray[Any, Any]

STRENGTHS = (3.0, 30.0, 300.0)
"""Values of C that are tried; a larger C means weaker regularisation."""
_MIDDLE = 30.0
_EXACT_ITEMS = 4000
"""Up to this many items the fit is exact, in the span of the items; beyond, it uses their principal directions."""
_DIRECTIONS = 1500
_ARRAYS = ("weights", "offsets", "log_prior")
_PLAIN = ("classes", "regularisation", "temperature", "prior_exponent")
"""Fields of a classifier that are stored as arrays, and those that are stored as JSON."""


@dataclass(frozen=True)
class Blocks:
    """Raw features, one row per item: n-gram counts of its text and of the text on its images, and image features."""

    dialogue: Any
    """Sparse, items × buckets."""
    shown: Any
    """Sparse, items × buckets."""
    images: Array
    """Items × image features; NaN for an item without images."""


@dataclass(frozen=True)
class FeatureWeights:
    """Turns raw features into rows whose blocks have equal weight; fitted to the training items, without labels."""

    state: dict[str, Array]
    """Maps name to array, ready to be saved: kept buckets and their idf for both texts, and the mean image features."""

    @classmethod
    def fit(cls, blocks: Blocks) -> Self:
        """Learn which buckets occur in two or more items, their idf, and the mean of image features."""
        state: dict[str, Array] = {}
        for name, counts in (("dialogue", blocks.dialogue), ("shown", blocks.shown)):
            items = np.asarray((counts > 0).sum(0)).ravel()
            kept = np.flatnonzero(items > 1)
            state[f"{name}_buckets"] = kept.astype(np.int32)
            state[f"{name}_idf"] = (np.log((1 + counts.shape[0]) / (1 + items[kept])) + 1).astype(np.float32)
        seen = ~np.isnan(blocks.images).any(1)
        mean = blocks.images[seen].mean(0) if seen.any() else np.zeros(blocks.images.shape[1])
        return cls(state | {"images_mean": mean.astype(np.float32)})

    def make_rows(self, blocks: Blocks) -> Any:
        """Return a sparse matrix, items × features; each of a row's three blocks has length 1, or 0 if it is empty."""
        texts: list[Any] = []
        for name, counts in (("dialogue", blocks.dialogue), ("shown", blocks.shown)):
            chosen = csr_matrix(counts[:, self.state[f"{name}_buckets"]], dtype=np.float64)
            chosen.data = 1 + np.log(chosen.data)
            texts.append(_normalise_rows(chosen.multiply(self.state[f"{name}_idf"]).tocsr()))
        images = np.nan_to_num(blocks.images - self.state["images_mean"])
        return hstack([*texts, _normalise_rows(csr_matrix(images, dtype=np.float64))]).tocsr()


def _normalise_rows(rows: Any) -> Any:
    return normalize(rows) if rows.shape[1] else rows  # scikit-learn refuses rows without columns


@dataclass(frozen=True)
class Classifier:
    """A classifier of `classes`: ``rows @ weights + offsets`` are its scores."""

    classes: tuple[str, ...]
    weights: Array
    offsets: Array
    log_prior: Array
    """Log share of each class in the training items."""
    regularisation: float
    temperature: float
    prior_exponent: float

    def predict(self, rows: Any, offered: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Return for each row a mapping from the item's labels, in `offered`, to their probabilities.

        An unknown label has probability 0. If all labels of an item are unknown, its mapping is empty.
        """
        scores = np.asarray(rows @ self.weights) + self.offsets
        logs = scores / self.temperature + self.prior_exponent * self.log_prior
        known = {label: position for position, label in enumerate(self.classes)}
        results: list[dict[str, float]] = []
        for row, labels in zip(logs, offered, strict=True):
            places = [known[label] for label in labels if label in known]
            shares = iter(np.exp(log_softmax(row[places])) if places else ())
            results.append({label: float(next(shares)) if label in known else 0.0 for label in labels if places})
        return results


def fit(
    rows: Any,
    labels: Sequence[str],
    offered: Sequence[Sequence[str]],
    inner_folds: Sequence[int] | None,
    regularisation: float | None,
    seed: int,
) -> Classifier:
    """Fit a classifier to `rows` (items × features, sparse) and `labels`, each of which is in its item's `offered`.

    `inner_folds` gives each item's calibration fold (−1: none). C (unless `regularisation` is given), the temperature
    and the weight of the prior are tuned on these folds. If `inner_folds` is None, they keep their defaults. `seed`
    determines the random directions to which the rows of a large set are reduced.
    The model is scikit-learn's multinomial logistic regression with balanced classes and L2 regularisation.
    """
    classes = tuple(sorted(set(labels)))
    places = {label: position for position, label in enumerate(classes)}
    targets = np.array([places[label] for label in labels])
    log_prior = np.log(np.bincount(targets) / len(targets))
    inside, back = _project_to_span(rows, seed)
    strength, temperature, prior = regularisation or _MIDDLE, 1.0, 1.0
    if inner_folds is not None and len(classes) > 1:
        allowed = np.array([[label in labels_of for label in classes] for labels_of in map(set, offered)])
        tried = [
            (*_calibrate(_score_held_out(inside, targets, np.asarray(inner_folds), c), allowed, targets, log_prior), c)
            for c in ((regularisation,) if regularisation else STRENGTHS)
        ]
        _, temperature, prior, strength = min(tried)
    weights, offsets = _fit_regression(inside, targets, len(classes), strength)
    return Classifier(classes, back @ weights, offsets, log_prior, strength, temperature, prior)


def _project_to_span(rows: Any, seed: int) -> tuple[Array, Any]:
    """Return the rows in coordinates of their span (items × directions), and the matrix from weights to features.

    Regularised weights are in the span of the rows, so nothing is lost, and a fit on a hundred thousand n-grams becomes
    one on as many numbers as there are items.
    """
    if rows.shape[0] > _EXACT_ITEMS:
        reduction: Any = TruncatedSVD(min(_DIRECTIONS, rows.shape[1] - 1), random_state=seed)
        return reduction.fit_transform(rows), reduction.components_.T
    squares, directions = np.linalg.eigh((rows @ rows.T).toarray())
    kept = squares > 1e-9 * max(float(squares[-1]), 1e-9)
    lengths = np.sqrt(squares[kept])
    return directions[:, kept] * lengths, rows.T @ (directions[:, kept] / lengths)


def _fit_regression(inside: Array, targets: Array, classes: int, strength: float) -> tuple[Array, Array]:
    """Return weights (directions × classes) and offsets (classes); a class without items has score −∞."""
    weights, offsets = np.zeros((inside.shape[1], classes)), np.full(classes, -np.inf)
    present = np.unique(targets)
    offsets[present] = 0.0
    if len(present) > 1 and inside.shape[1]:
        model: Any = LogisticRegression(C=strength, class_weight="balanced", max_iter=500)
        with warnings.catch_warnings():
            # about few items per class and about convergence of the last digits, which calibration makes irrelevant
            warnings.simplefilter("ignore", UserWarning)
            model.fit(inside, targets)
        # for two classes scikit-learn fits the score of the second only
        shown = present if len(present) > 2 else present[1:]
        weights[:, shown], offsets[shown] = model.coef_.T, model.intercept_
    return weights, offsets


def _score_held_out(inside: Array, targets: Array, parts: Array, strength: float) -> Array:
    """Return each item's scores by a fit that did not see its part; −∞ for an item without a part."""
    classes = int(targets.max()) + 1
    scores = np.full((len(targets), classes), -np.inf)
    for part in np.unique(parts[parts >= 0]):
        weights, offsets = _fit_regression(inside[parts != part], targets[parts != part], classes, strength)
        scores[parts == part] = inside[parts == part] @ weights + offsets
    return scores


def _calibrate(scores: Array, allowed: Array, targets: Array, log_prior: Array) -> tuple[float, float, float]:
    """Return (mean log loss, temperature, weight of the prior) that minimise the log loss of held-out labels."""
    allowed = allowed & np.isfinite(scores)
    # an item whose class is in no other part cannot be used for calibration
    usable = allowed[np.arange(len(targets)), targets] & (allowed.sum(1) > 1)
    if not usable.any():
        return 0.0, 1.0, 1.0
    scores, allowed, targets = scores[usable], allowed[usable], targets[usable]

    def compute_log_loss(values: Array) -> float:
        logs = np.where(allowed, scores / np.exp(values[0]) + values[1] * log_prior, -np.inf)
        return -float(log_softmax(logs, axis=1)[np.arange(len(targets)), targets].mean())

    best: Any = minimize(compute_log_loss, np.array([0.0, 0.5]), method="L-BFGS-B", bounds=[(-4, 4), (0, 1.5)])
    return float(best.fun), float(np.exp(best.x[0])), float(best.x[1])


def to_arrays(classifier: Classifier, weighing: FeatureWeights) -> tuple[dict[str, Array], dict[str, object]]:
    """Return arrays for an .npz file and values for a JSON file, from which `from_arrays` restores both arguments."""
    values: dict[str, Any] = vars(classifier) | {"weights": classifier.weights.astype(np.float32)}
    arrays = {name: values.pop(name) for name in _ARRAYS}
    return arrays | weighing.state, values


def from_arrays(arrays: Mapping[str, Array], plain: Mapping[str, Any]) -> tuple[Classifier, FeatureWeights]:
    """Restore classifier and feature weights from the result of `to_arrays`; raises KeyError if a part is missing."""
    fields: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
    fields |= {name: plain[name] for name in _PLAIN}
    fields["classes"] = tuple(fields["classes"])
    return Classifier(**fields), FeatureWeights({name: array for name, array in arrays.items() if name not in _ARRAYS})
