# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (scipy publishes no types)
"""P(pseudo-label right): a logistic model of the evidence with one intercept per class, and how sure we are of it.

Weights of evidence are never negative, so the expected precision never falls when the evidence grows. Rare classes are
shrunk towards the others by a normal prior on their intercepts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from tasks.correction.calibration import fit_logistic
from tasks.pseudo_labels.calibration_targets import Targets
from tasks.pseudo_labels.evidence import Evidence, encode_evidence

Values = NDArray[np.float64]

ROUNDS = 200
"""Fits that we might as well have made, behind every expected precision and every interval."""

# Means and standard deviations of normal priors: intercept, then FEATURES. Without a labelled item they shrink the
# teacher's log odds, as its overconfidence would. Slopes must be free to grow: a teacher made worse on purpose (81 %
# right, 48 % sure) needed five times these, and with a spread of 0.4 half of the pool was kept instead of 71 %.
_MEAN = np.array([0.5, 0.7, 0.5, 1.0, 0.2, 0.2, 0.3, 0.0])
_SPREAD = np.array([2.0, 1.0, 2.0, 2.0, 0.3, 0.3, 0.3, 1.0])
_CLASS_SPREAD = 1.0
"""Of the classes' intercepts. Of 80 drawn sets with classes 1.5 apart, intervals cover 92 % with 1.0 and 88 % with 0.7;
where they are 0.7 apart, both cover alike."""
_BOUNDED = (np.arange(len(_MEAN)) > 0) & (np.arange(len(_MEAN)) < len(_MEAN) - 1)
"""All but the intercept, and having been put before the second teacher at all, must not be negative."""


@dataclass(frozen=True)
class TrustModel:
    """Coefficients of `ROUNDS` fits: intercept and FEATURES [R, 1 + F], intercepts of known classes [R, C]."""

    slopes: Values
    classes: tuple[str, ...]
    intercepts: Values
    seed: int = 0

    def draw_rounds(self, found: Sequence[Evidence], labels: Sequence[str]) -> Iterator[Values]:
        """Yield, per round, [N] the probability that each item's label is right, were this fit the true one.

        A class that no labelled item was given has an intercept drawn from the prior.
        """
        matrix = _build_matrix(found)
        names = tuple(dict.fromkeys(labels))
        places = {label: i for i, label in enumerate(names)}
        which = np.array([places[label] for label in labels], dtype=np.int64)
        known = {label: i for i, label in enumerate(self.classes)}
        rng = np.random.default_rng([self.seed, 1])
        for slopes, intercepts in zip(self.slopes, self.intercepts, strict=True):
            drawn = rng.normal(0.0, _CLASS_SPREAD, len(names))
            of_class = np.array([intercepts[known[c]] if c in known else drawn[i] for i, c in enumerate(names)])
            yield expit(matrix @ slopes + of_class[which])

    def expect_precision(self, found: Sequence[Evidence], labels: Sequence[str]) -> Values:
        """Return [N] the expected precision of each item: the mean over all rounds."""
        return sum(self.draw_rounds(found, labels), np.zeros(len(found))) / len(self.slopes)


def fit_trust(targets: Targets, seed: int, rounds: int = ROUNDS) -> TrustModel:
    """Return the fits to `rounds` drawings of all that is uncertain.

    Drawn are: the items' weights (Bayesian bootstrap, D. B. Rubin, "The Bayesian Bootstrap", Annals of Statistics 9,
    1981), what is right where that is only believed, by how much those beliefs are off as a whole, and the priors'
    means (which with reweighted data makes the fits draws from the posterior: M. A. Newton and A. E. Raftery,
    "Approximate Bayesian inference with the weighted likelihood bootstrap", JRSS B 56, 1994).
    """
    rng = np.random.default_rng([seed, 0])
    classes = tuple(sorted(set(targets.labels)))
    places = {label: i for i, label in enumerate(classes)}
    of_class = np.eye(len(classes))[[places[label] for label in targets.labels]]
    matrix = np.column_stack([_build_matrix(targets.evidence), of_class])
    means = np.concatenate([_MEAN, np.zeros(len(classes))])
    spread = np.concatenate([_SPREAD, np.full(len(classes), _CLASS_SPREAD)])
    count, width = len(matrix), len(_MEAN)
    bounded = np.concatenate([_BOUNDED, np.zeros(len(classes), bool)])
    found = np.empty((rounds, len(means)))
    start = means
    for number in range(rounds):
        right = _draw_truth(targets, rng)
        weights = rng.dirichlet(np.ones(count)) * count if count else np.zeros(0)
        found[number] = start = fit_logistic(
            matrix, right, rng.normal(means, spread), spread, weights=weights, bounded=bounded, start=start
        )
    return TrustModel(found[:, :width], classes, found[:, width:], seed)


def _draw_truth(targets: Targets, rng: np.random.Generator) -> Values:
    """Return [N] 0 or 1: one way that it may be."""
    mean, spread = targets.shift
    off = rng.normal(mean, spread)
    odds = logit(np.clip(targets.right, 1e-6, 1 - 1e-6))
    believed = np.where(targets.certain, targets.right, expit(odds + off))
    return (rng.random(len(believed)) < believed).astype(np.float64)


def _build_matrix(found: Sequence[Evidence]) -> Values:
    """Return [N, 1 + F]: the intercept's ones, then the evidence."""
    return np.column_stack([np.ones(len(found)), encode_evidence(found)])
