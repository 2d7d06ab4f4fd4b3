# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (scikit-learn and scipy publish few types)
"""The probe's classifier: features weighed into one row an item, a logistic regression on them, and its calibration.

Classes count alike while it is fitted, however rare they are. How much their frequencies should count, and how sharp
probabilities may be, is then measured on items held out inside the training part: two numbers for all classes
together, which a class of four items can bear where a curve for each class could not.
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
"""Values of C (weak regularisation is a large C) that are tried."""
_MIDDLE = 30.0
_EXACT_ITEMS = 4000
"""Up to here the fit happens in the span of the items themselves, exactly; beyond, in their main directions."""
_DIRECTIONS = 1500
_ARRAYS = ("weights", "offsets", "log_prior")
_PLAIN = ("classes", "regularisation", "temperature", "prior_exponent")
"""Fields of a classifier: those kept as arrays, and those kept as JSON."""


@dataclass(frozen=True)
class Blocks:
    """Raw features, one row an item: n-gram counts of its own words and of its images' texts, and its images."""

    dialogue: Any
    """Sparse, items × buckets."""
    shown: Any
    """Sparse, items × buckets."""
    images: Array
    """Items × image features; a row of NaN for an item without images."""


@dataclass(frozen=True)
class Weighing:
    """How raw features become rows of equal weight: learnt from the training part, without its labels."""

    state: dict[str, Array]
    """Arrays by name, fit to be saved: for both texts the kept buckets and their idf; the images' mean."""

    @classmethod
    def fit(cls, blocks: Blocks) -> Self:
        """Learn which buckets occur in two items or more, how rare they are, and what the average image looks like."""
        state: dict[str, Array] = {}
        for name, counts in (("dialogue", blocks.dialogue), ("shown", blocks.shown)):
            items = np.asarray((counts > 0).sum(0)).ravel()
            kept = np.flatnonzero(items > 1)
            state[f"{name}_buckets"] = kept.astype(np.int32)
            state[f"{name}_idf"] = (np.log((1 + counts.shape[0]) / (1 + items[kept])) + 1).astype(np.float32)
        seen = ~np.isnan(blocks.images).any(1)
        mean = blocks.images[seen].mean(0) if seen.any() else np.zeros(blocks.images.shape[1])
        return cls(state | {"images_mean": mean.astype(np.float32)})

    def rows(self, blocks: Blocks) -> Any:
        """Items × features, sparse: each of the three blocks of length 1 in each row, or 0 where an item has none."""
        texts: list[Any] = []
        for name, counts in (("dialogue", blocks.dialogue), ("shown", blocks.shown)):
            chosen = csr_matrix(counts[:, self.state[f"{name}_buckets"]], dtype=np.float64)
            chosen.data = 1 + np.log(chosen.data)
            texts.append(_unit(chosen.multiply(self.state[f"{name}_idf"]).tocsr()))
        images = np.nan_to_num(blocks.images - self.state["images_mean"])
        return hstack([*texts, _unit(csr_matrix(images, dtype=np.float64))]).tocsr()


def _unit(rows: Any) -> Any:
    return normalize(rows) if rows.shape[1] else rows  # scikit-learn refuses to scale rows of nothing


@dataclass(frozen=True)
class Classifier:
    """A classifier of `classes`: ``rows @ weights + offsets`` are its scores."""

    classes: tuple[str, ...]
    weights: Array
    offsets: Array
    log_prior: Array
    """Of each class in the training part."""
    regularisation: float
    temperature: float
    prior_exponent: float

    def predict(self, rows: Any, offered: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Return the probability of each label an item offers, 0 for labels unknown here; empty where all are."""
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
) -> Classifier:
    """Fit to `rows` (items × features, sparse) and their `labels`, each one of those that its item offers.

    `inner_folds` numbers the parts on which C (unless `regularisation` fixes it), temperature and the prior's weight
    are measured, −1 for items that are in none; no parts at all leave them at their defaults. Multinomial, balanced
    classes, L2 (scikit-learn).
    """
    classes = tuple(sorted(set(labels)))
    places = {label: position for position, label in enumerate(classes)}
    targets = np.array([places[label] for label in labels])
    log_prior = np.log(np.bincount(targets) / len(targets))
    inside, back = _span(rows)
    strength, temperature, prior = regularisation or _MIDDLE, 1.0, 1.0
    if inner_folds is not None and len(classes) > 1:
        allowed = np.array([[label in labels_of for label in classes] for labels_of in map(set, offered)])
        tried = [
            (*_calibrated(_held_out(inside, targets, np.asarray(inner_folds), c), allowed, targets, log_prior), c)
            for c in ((regularisation,) if regularisation else STRENGTHS)
        ]
        _, temperature, prior, strength = min(tried)
    weights, offsets = _regression(inside, targets, len(classes), strength)
    return Classifier(classes, back @ weights, offsets, log_prior, strength, temperature, prior)


def _span(rows: Any) -> tuple[Array, Any]:
    """The rows in coordinates of their own span (items × directions), and what brings weights back to features.

    Regularised weights lie in the span of the rows, so nothing is lost, and a fit on a hundred thousand n-grams
    becomes one on as many numbers as there are items.
    """
    if rows.shape[0] > _EXACT_ITEMS:
        reduction: Any = TruncatedSVD(min(_DIRECTIONS, rows.shape[1] - 1), random_state=0)
        return reduction.fit_transform(rows), reduction.components_.T
    squares, directions = np.linalg.eigh((rows @ rows.T).toarray())
    kept = squares > 1e-9 * max(float(squares[-1]), 1e-9)
    lengths = np.sqrt(squares[kept])
    return directions[:, kept] * lengths, rows.T @ (directions[:, kept] / lengths)


def _regression(inside: Array, targets: Array, classes: int, strength: float) -> tuple[Array, Array]:
    """Weights (directions × classes) and offsets (classes); a class that has no items here scores −∞."""
    weights, offsets = np.zeros((inside.shape[1], classes)), np.full(classes, -np.inf)
    present = np.unique(targets)
    offsets[present] = 0.0
    if len(present) > 1 and inside.shape[1]:
        model: Any = LogisticRegression(C=strength, class_weight="balanced", max_iter=500)
        with warnings.catch_warnings():
            # of few items a class, and of the last digits of weights whose use is measured afterwards anyway
            warnings.simplefilter("ignore", UserWarning)
            model.fit(inside, targets)
        # of two classes scikit-learn fits the second's score alone
        shown = present if len(present) > 2 else present[1:]
        weights[:, shown], offsets[shown] = model.coef_.T, model.intercept_
    return weights, offsets


def _held_out(inside: Array, targets: Array, parts: Array, strength: float) -> Array:
    """Each item's scores by a fit that did not see its part; −∞ for an item of none."""
    classes = int(targets.max()) + 1
    scores = np.full((len(targets), classes), -np.inf)
    for part in np.unique(parts[parts >= 0]):
        weights, offsets = _regression(inside[parts != part], targets[parts != part], classes, strength)
        scores[parts == part] = inside[parts == part] @ weights + offsets
    return scores


def _calibrated(scores: Array, allowed: Array, targets: Array, log_prior: Array) -> tuple[float, float, float]:
    """(mean surprise, temperature, weight of the prior): those under which held-out labels surprise least."""
    allowed = allowed & np.isfinite(scores)
    # an item whose class is in no other part says nothing about sharpness
    usable = allowed[np.arange(len(targets)), targets] & (allowed.sum(1) > 1)
    if not usable.any():
        return 0.0, 1.0, 1.0
    scores, allowed, targets = scores[usable], allowed[usable], targets[usable]

    def surprise(values: Array) -> float:
        logs = np.where(allowed, scores / np.exp(values[0]) + values[1] * log_prior, -np.inf)
        return -float(log_softmax(logs, axis=1)[np.arange(len(targets)), targets].mean())

    best: Any = minimize(surprise, np.array([0.0, 0.5]), method="L-BFGS-B", bounds=[(-4, 4), (0, 1.5)])
    return float(best.fun), float(np.exp(best.x[0])), float(best.x[1])


def to_arrays(classifier: Classifier, weighing: Weighing) -> tuple[dict[str, Array], dict[str, object]]:
    """Return arrays for an .npz file and plain values for a JSON file, from which `from_arrays` makes both again."""
    values = vars(classifier) | {"weights": classifier.weights.astype(np.float32)}
    arrays = {name: values.pop(name) for name in _ARRAYS}
    return arrays | weighing.state, values


def from_arrays(arrays: Mapping[str, Array], plain: Mapping[str, Any]) -> tuple[Classifier, Weighing]:
    """Make both again from what `to_arrays` returned. Raises KeyError when something is missing."""
    fields = {name: arrays[name] for name in _ARRAYS} | {name: plain[name] for name in _PLAIN}
    fields["classes"] = tuple(fields["classes"])
    return Classifier(**fields), Weighing({name: array for name, array in arrays.items() if name not in _ARRAYS})
