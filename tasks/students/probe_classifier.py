"""The probe's classifier: several simple models of one labelling task, and a weighted sum of their scores.

Texts: kernel ridge regression and complement naive Bayes (Rennie et al., ICML 2003) on TF-IDF of character n-grams.
Images: kernel ridge regression with an RBF kernel, and extremely randomised trees (Geurts et al., 2006). Ridge has a
closed form: a fit takes a thirtieth of the time of a logistic regression or an SVM, at about the same accuracy.

The weights of the models and of the class frequencies minimise the log loss of items held out within the training part.
The models on images are used only if they make that loss smaller. All classes share these few numbers, because a class
with four items has too few for a calibration curve of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import log_softmax
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.naive_bayes import ComplementNB
from sklearn.preprocessing import normalize

from tasks.students.probe_trees import fit_trees, score_by_trees

Array = np.ndarray[Any, Any]

RIDGES = (0.1, 0.3, 1.0)
"""Strengths of the ridge that are tried."""
_LANDMARKS = 2000
"""Maximum number of training items whose similarity to an item is computed; larger sets are sampled."""
_GAIN = 0.005
"""The models on images are used if they reduce the mean log loss by at least this share."""
_ALONE = 4.0
"""The sum of the weights where no item can be held out."""
_SPREAD = 1e-3
"""Penalty on squared weights, so that two equal models share their weight."""


@dataclass(frozen=True)
class Features:
    """Features of the items of one task: n-gram counts of one or more texts, and image features."""

    texts: dict[str, Any]
    """Maps the text's name to a sparse matrix, items × buckets."""
    images: Array
    """Items × image features; NaN for an item without images. No columns if the task has no images."""


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier of `classes`. `models` maps a model's name to its weight, `arrays` has what it learned."""

    classes: tuple[str, ...]
    models: dict[str, float]
    prior_exponent: float
    arrays: dict[str, Array]

    def predict(self, features: Features, offered: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Return for each item a mapping from its labels, in `offered`, to their probabilities.

        An unknown label has probability 0. If all labels of an item are unknown, its mapping is empty.
        """
        logs = np.tile(self.prior_exponent * self.arrays["log_prior"], (len(offered), 1))
        for name, weight in self.models.items():
            logs += weight * score(name, self.arrays, features)
        known = {label: position for position, label in enumerate(self.classes)}
        results: list[dict[str, float]] = []
        for row, labels in zip(logs, offered, strict=True):
            places = [known[label] for label in labels if label in known]
            shares = iter(np.exp(log_softmax(row[places])) if places else ())
            results.append({label: float(next(shares)) if label in known else 0.0 for label in labels if places})
        return results


@dataclass(frozen=True)
class _Goal:
    """What the models of a task should predict."""

    targets: Array
    """[N] class of each item."""
    allowed: Array
    """[N, C] whether the item offers the class."""
    log_prior: Array
    """[C] log share of each class."""
    parts: Array
    """[N] calibration fold of each item; −1: none."""

    def score_held_out(self, fit_and_score: Callable[[Array, Array], Array]) -> Array:
        """Return scores [N, …] by fits that did not see the item's part; NaN for an item without a part.

        `fit_and_score` takes the items to fit to and the items to score, each as a mask, and returns the scores.
        """
        scores = np.full(self.allowed.shape, np.nan)
        for part in np.unique(self.parts[self.parts >= 0]):
            found = fit_and_score(self.parts != part, self.parts == part)
            if scores.shape[1:] != found.shape[1:]:
                scores = np.full((len(scores), *found.shape[1:]), np.nan)
            scores[self.parts == part] = found
        return scores


def fit(
    features: Features,
    labels: Sequence[str],
    offered: Sequence[Sequence[str]],
    inner_folds: Sequence[int] | None,
    seed: int,
) -> Classifier:
    """Fit a classifier to the items' `labels`, each of which is in its item's `offered`.

    `inner_folds` gives each item's calibration fold (−1: none). If it is None, all models have the same weight. `seed`
    determines the trees and, in a set of more than 2,000 items, the landmarks.
    """
    classes = tuple(sorted(set(labels)))
    targets = np.array([classes.index(label) for label in labels])
    allowed = np.array([[label in labels_of for label in classes] for labels_of in map(set, offered)])
    parts = np.full(len(targets), -1) if inner_folds is None else np.asarray(inner_folds)
    goal = _Goal(targets, allowed, np.log(np.bincount(targets) / len(targets)), parts)
    landmarks = np.sort(np.random.default_rng(seed).permutation(len(targets))[:_LANDMARKS])
    arrays: dict[str, Array] = {"log_prior": goal.log_prior}
    held_out: dict[str, Array] = {}
    for text, counts in features.texts.items():
        _fit_to_text(text, counts, landmarks, goal, arrays, held_out)
    if features.images.shape[1]:
        _fit_to_images(features.images, landmarks, seed, goal, arrays, held_out)
    models, prior_exponent = _choose_weights(held_out, goal)
    return Classifier(classes, models, prior_exponent, arrays)


def score(model: str, arrays: Mapping[str, Array], features: Features) -> Array:
    """Return the scores, items × classes, that the model of this name gives to the items; 0 if it knows nothing."""
    kind, _, what = model.partition(" ")
    if what != "images":
        rows = _weigh(features.texts[what], arrays[f"{what} buckets"], arrays[f"{what} idf"])
        return np.asarray(rows @ arrays[model])
    rows = _center(features.images, arrays)
    found = _compare(rows, arrays) @ arrays[model] if kind == "ridge" else score_by_trees(arrays, rows)
    return np.where(np.isnan(features.images).any(1, keepdims=True), 0.0, found)


def _fit_to_text(
    text: str, counts: Any, landmarks: Array, goal: _Goal, arrays: dict[str, Array], held_out: dict[str, Array]
) -> None:
    """Fit both models on texts; add what they learned to `arrays`, and their held-out scores to `held_out`.

    Nothing is added if all items have the same text, or none.
    """
    items = np.asarray((counts > 0).sum(0)).ravel()
    kept = np.flatnonzero((items > 1) & (items < counts.shape[0]))
    if not len(kept):
        return
    arrays[f"{text} buckets"] = kept.astype(np.int32)
    arrays[f"{text} idf"] = (np.log((1 + counts.shape[0]) / (1 + items[kept])) + 1).astype(np.float32)
    rows = _weigh(counts, kept, arrays[f"{text} idf"])

    def fit_bayes(used: Array) -> Array:
        weights = np.zeros((rows.shape[1], len(goal.log_prior)))
        present = np.unique(goal.targets[used])
        if rows.shape[1] and len(present) > 1:
            weights[:, present] = ComplementNB().fit(rows[used], goal.targets[used]).feature_log_prob_.T
        return weights

    held_out[f"bayes {text}"] = goal.score_held_out(lambda used, asked: np.asarray(rows[asked] @ fit_bayes(used)))
    arrays[f"bayes {text}"] = fit_bayes(np.ones(len(goal.targets), bool)).astype(np.float32)
    inputs = rows[landmarks]
    held_out[f"ridge {text}"], dual = _fit_ridge((rows @ inputs.T).toarray(), landmarks, goal)
    arrays[f"ridge {text}"] = (inputs.T @ dual).astype(np.float32)


def _fit_to_images(
    images: Array, landmarks: Array, seed: int, goal: _Goal, arrays: dict[str, Array], held_out: dict[str, Array]
) -> None:
    """Fit both models on images; add what they learned to `arrays`, and their held-out scores to `held_out`."""
    seen = ~np.isnan(images).any(1)
    arrays["images mean"] = images[seen].mean(0) if seen.any() else np.zeros(images.shape[1], np.float32)
    rows = _center(images, arrays)
    arrays["landmarks"] = rows[landmarks]
    arrays["gamma"] = np.array(1 / max(2 * float(rows.var(0).sum()), 1e-9))  # 1 / mean squared distance of two items
    held_out["ridge images"], arrays["ridge images"] = _fit_ridge(_compare(rows, arrays), landmarks, goal)
    classes = len(goal.log_prior)
    held_out["trees images"] = goal.score_held_out(
        lambda used, asked: score_by_trees(fit_trees(rows[used], goal.targets[used], classes, seed), rows[asked])
    )
    arrays |= fit_trees(rows, goal.targets, classes, seed)


def _weigh(counts: Any, buckets: Array, idf: Array) -> Any:
    """Return TF-IDF rows of length 1, items × kept buckets."""
    chosen = csr_matrix(counts[:, buckets], dtype=np.float64)
    chosen.data = 1 + np.log(chosen.data)
    rows = csr_matrix(chosen.multiply(idf))
    return normalize(rows)


def _center(images: Array, arrays: Mapping[str, Array]) -> Array:
    return np.nan_to_num(images - arrays["images mean"])


def _compare(rows: Array, arrays: Mapping[str, Array]) -> Array:
    return rbf_kernel(rows, arrays["landmarks"], gamma=float(arrays["gamma"]))


def _fit_ridge(kernel: Array, landmarks: Array, goal: _Goal) -> tuple[Array, Array]:
    """Return held-out scores [N, C] and the weights of the landmarks, with the ridge of the lowest held-out log loss.

    `kernel` [N, landmarks] has similarities. This is regression on a subset of regressors (Rasmussen and Williams,
    2006, section 8.3.1), which is exact if every item is a landmark.
    """
    one_hot = np.eye(len(goal.log_prior))[goal.targets]
    counts = np.bincount(goal.targets)
    # half-way between equal weight of all items and equal weight of all classes
    weights = np.sqrt(len(kernel) / len(counts) / counts)[goal.targets]

    def solve(used: Array, ridges: Sequence[float]) -> Array:
        """Return the weights [landmarks, ridges, C]."""
        weighted = kernel[used].T * weights[used]
        gram, goals = weighted @ kernel[used], weighted @ one_hot[used]
        jitter = 1e-8 * max(float(np.trace(gram)), 1e-3) * np.eye(len(gram))
        among = kernel[landmarks]
        return np.stack([cho_solve(cho_factor(gram + r * among + jitter), goals) for r in ridges], axis=1)

    scores = goal.score_held_out(lambda used, asked: np.tensordot(kernel[asked], solve(used, RIDGES), 1))
    if scores.ndim == 2:  # no item can be held out
        return scores, solve(np.ones(len(kernel), bool), RIDGES[1:2])[:, 0]
    losses = [_minimise_loss([scores[:, i]], goal)[0] for i in range(len(RIDGES))]
    best = int(np.argmin(losses))
    return scores[:, best], solve(np.ones(len(kernel), bool), RIDGES[best : best + 1])[:, 0]


def _choose_weights(held_out: Mapping[str, Array], goal: _Goal) -> tuple[dict[str, float], float]:
    """Return the weight of each model that is used, and the exponent of the class frequencies."""
    of_texts = [name for name in held_out if not name.endswith(" images")]
    loss, weights, prior = _minimise_loss([held_out[name] for name in of_texts], goal)
    loss_of_all, weights_of_all, prior_of_all = _minimise_loss(list(held_out.values()), goal)
    if not of_texts or loss_of_all < (1 - _GAIN) * loss:
        return dict(zip(held_out, weights_of_all, strict=True)), prior_of_all
    return dict(zip(of_texts, weights, strict=True)), prior


def _minimise_loss(scores: Sequence[Array], goal: _Goal) -> tuple[float, list[float], float]:
    """Return the lowest mean log loss of held-out labels, the weights of `scores`, and the exponent of the prior."""
    equal = [_ALONE / max(len(scores), 1)] * len(scores)
    usable = goal.parts >= 0
    # an item whose class is in no other part, or that offers one class only, cannot be used for calibration
    for part in np.unique(goal.parts[usable]):
        known = np.isin(goal.targets, goal.targets[goal.parts != part])
        usable &= known | (goal.parts != part)
    usable &= goal.allowed.sum(1) > 1
    if not usable.any() or not scores:
        return 0.0, equal, 1.0
    stack = np.stack([table[usable] for table in scores])
    scale = np.maximum(stack.std(axis=(1, 2)), 1e-9)
    stack /= scale[:, None, None]
    allowed, rows, targets = goal.allowed[usable], np.arange(int(usable.sum())), goal.targets[usable]
    hot = np.eye(len(goal.log_prior))[targets]

    def compute_loss(values: Array) -> tuple[float, Array]:
        weights, exponent = values[:-1], values[-1]
        logs = np.where(allowed, np.tensordot(weights, stack, 1) + exponent * goal.log_prior, -np.inf)
        fit = log_softmax(logs, axis=1)
        excess = np.exp(fit) - hot
        slopes = [*(np.tensordot(stack, excess, 2) / len(rows)), float((excess @ goal.log_prior).mean())]
        penalty = _SPREAD * float(weights @ weights)
        return penalty - float(fit[rows, targets].mean()), np.array(slopes) + 2 * _SPREAD * np.append(weights, 0)

    bounds = [(0, None)] * len(scores) + [(0, 1.5)]
    found: Any = minimize(
        compute_loss, np.append(np.ones(len(scores)), 0.5), jac=True, method="L-BFGS-B", bounds=bounds
    )
    return float(found.fun), (found.x[:-1] / scale).tolist(), float(found.x[-1])


def to_arrays(classifier: Classifier) -> tuple[dict[str, Array], dict[str, object]]:
    """Return arrays for an .npz file and values for a JSON file, from which `from_arrays` restores the classifier."""
    values: dict[str, Any] = dict(vars(classifier))
    return values.pop("arrays"), values


def from_arrays(arrays: Mapping[str, Array], plain: Mapping[str, Any]) -> Classifier:
    """Restore a classifier from the result of `to_arrays`; raises KeyError if a part is missing."""
    return Classifier(tuple(plain["classes"]), plain["models"], plain["prior_exponent"], dict(arrays))
