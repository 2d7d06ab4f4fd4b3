# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (scipy publishes no types)
"""From suspicion to probability: logistic models with priors, fitted to what a person said about audited items.

A logistic model on 100 audited items came nearest to the best threshold in hindsight on human label noise (mean F1
.807; disagreement .787, cleanlab's best filter .743, confidence .9 .153).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from tasks.correction.judgements import Judgements
from tasks.correction.suspicion import Suspicion

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Means and precisions (1/variance) of normal priors: intercept and slopes. What fits to many audited items gave, about:
# weak enough that 20 verdicts move them, strong enough that without any the flags are those of a margin of 0.1 to 0.3.
_WRONG = (np.array([-1.1, 1.3, 0.0, 0.5]), np.array([2.0, 4.0, 1e6, 4.0]))
_WRONG_WITH_TEACHER = (np.array([-1.3, 0.8, 1.2, 0.2]), np.array([2.0, 4.0, 2.0, 4.0]))
_CANDIDATE = (np.array([0.8, 0.5]), np.array([2.0, 4.0]))


@dataclass(frozen=True)
class Beliefs:
    """Probabilities of each item, [N] each; they add up to 1."""

    p_given: Values
    """The given label is right."""
    p_candidate: Values
    """The candidate is right."""
    p_neither: Values
    """Neither is: another label, or none."""

    @property
    def p_wrong(self) -> Values:
        """The given label is wrong."""
        return self.p_candidate + self.p_neither


@dataclass(frozen=True)
class Calibration:
    """Coefficients of P(given label wrong) and of P(candidate right, if the given label is wrong)."""

    wrong: Values
    candidate: Values

    def beliefs(self, evidence: Suspicion) -> Beliefs:
        """What the evidence means for each item."""
        p_wrong = expit(_about_given(evidence) @ self.wrong)
        right = np.where(evidence.candidate < 0, 0.0, expit(_about_candidate(evidence) @ self.candidate))
        return Beliefs(1 - p_wrong, p_wrong * right, p_wrong * (1 - right))


def calibrate(
    judgements: Judgements,
    evidence: Suspicion,
    verdicts: Mapping[int, int],
    items: Sequence[int] | None = None,
    shaken: np.random.Generator | None = None,
) -> Calibration:
    """Fit to `verdicts` (item → label index, -1 for neither) of `items` (default: all of them, with repetitions).

    With `shaken` the priors' means are drawn from the priors: one of the fits that we might as well have made. Which
    items were judged may depend on the evidence, as the audit's choice does: the models are conditional on it.
    """
    places = np.array(sorted(verdicts) if items is None else items, dtype=np.int64)
    said = np.array([verdicts[i] for i in places.tolist()], dtype=np.int64)
    prior = _WRONG_WITH_TEACHER if evidence.teacher_log_ratio.any() else _WRONG
    wrong = said != judgements.given[places]
    theirs = places[wrong]
    return Calibration(
        _fit(_about_given(evidence)[places], wrong, *_prior(prior, shaken)),
        _fit(
            _about_candidate(evidence)[theirs], said[wrong] == evidence.candidate[theirs], *_prior(_CANDIDATE, shaken)
        ),
    )


def best_expected_f1(p_wrong: Values) -> Flags:
    """The items to flag so that the expected F1, 2·Σp(flagged) / (flagged + Σp), is the highest."""
    order = np.argsort(-p_wrong, kind="stable")
    hits = np.cumsum(p_wrong[order])
    best = int(np.argmax(2 * hits / (np.arange(1, len(order) + 1) + p_wrong.sum())))
    return _first(order, best + 1)


def at_precision(p_wrong: Values, target: float) -> Flags:
    """The most items to flag so that the expected share of wrong labels among them is at least `target`."""
    order = np.argsort(-p_wrong, kind="stable")
    precise = np.flatnonzero(np.cumsum(p_wrong[order]) / np.arange(1, len(order) + 1) >= target)
    return _first(order, int(precise[-1]) + 1 if len(precise) else 0)


def resampled(
    judgements: Judgements, evidence: Suspicion, verdicts: Mapping[int, int], rounds: int, seed: int
) -> list[Beliefs]:
    """Beliefs of `rounds` bootstrap samples of the verdicts, each under priors with drawn means.

    How much beliefs hang on who happened to be asked, and on what was believed before.
    """
    rng = np.random.default_rng(seed)
    items = np.array(sorted(verdicts))
    drawn = (rng.choice(items, len(items)).tolist() for _ in range(rounds))
    return [calibrate(judgements, evidence, verdicts, sample, rng).beliefs(evidence) for sample in drawn]


def _prior(prior: tuple[Values, Values], shaken: np.random.Generator | None) -> tuple[Values, Values]:
    mean, precision = prior
    return (mean if shaken is None else shaken.normal(mean, precision**-0.5)), precision


def _about_given(evidence: Suspicion) -> Values:
    known = (evidence.log_ratio, evidence.teacher_log_ratio, evidence.asymmetry)
    return np.column_stack([np.ones(len(evidence.log_ratio)), *known])


def _about_candidate(evidence: Suspicion) -> Values:
    return np.column_stack([np.ones(len(evidence.others)), evidence.others])


def _fit(features: Values, hits: Flags, mean: Values, precision: Values) -> Values:
    """Most probable coefficients of a logistic model under normal priors; the priors' means without any item."""

    def loss(coefficients: Values) -> tuple[float, Values]:
        z = features @ coefficients
        away = coefficients - mean
        value = float(np.sum(np.logaddexp(0, z) - hits * z) + 0.5 * np.sum(precision * away**2))
        return value, features.T @ (expit(z) - hits) + precision * away

    return np.asarray(minimize(loss, mean, jac=True, method="L-BFGS-B").x)


def _first(order: NDArray[np.int64], count: int) -> Flags:
    flags = np.zeros(len(order), dtype=bool)
    flags[order[:count]] = True
    return flags
