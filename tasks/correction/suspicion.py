# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (scipy publishes no types)
"""How much the evidence speaks against each given label, in figures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import entr, log_softmax

from tasks.correction.judgements import Floats, Ints, Judgements

LEAST = 1e-3
"""Probabilities below this are taken for equal: a log-ratio beyond e⁷ tells how sure a softmax is, not how right."""
_STUDENT_WEIGHT = 0.6
"""Of the student's log-probabilities beside the teacher's when a candidate is chosen."""


@dataclass(frozen=True)
class Suspicion:
    """Evidence for each of N items; the candidate is the likeliest label other than the given one."""

    candidate: Ints
    """[N] index into the labels; -1 where no other label has any probability."""
    margin: Floats
    """[N] the students' averaged probability of the candidate minus that of the given label; above 0 they disagree."""
    entropy: Floats
    """[N] of the students' averaged probabilities, nats."""
    log_ratio: NDArray[np.float64]
    """log(candidate / given) of the tempered probabilities: what suspicion is calibrated on."""
    teacher_log_ratio: NDArray[np.float64]
    """The same of the teacher; 0 where it was not asked."""
    asymmetry: NDArray[np.float64]
    """[N] log of how much oftener items given this label look like the candidate than the other way round (counts + 1).

    Labels that are confused both ways are hard; a pair that goes one way only is a habit of whoever labelled.
    """
    others: NDArray[np.float64]
    """log odds of the candidate among all labels but the given one."""


def temper(judgements: Judgements) -> NDArray[np.float64]:
    """Return the log-probabilities [N, C] of the students at the temperature that explains the given labels best.

    With it, over- and underconfident students are judged on one scale. A fiftieth of the labels is taken for noise,
    so that a few sure contradictions don't set the temperature. Source of temperature scaling: Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017.
    """
    logs = np.log(judgements.students.astype(np.float64) + 1e-6)
    some = np.linspace(0, len(logs) - 1, min(len(logs), 5_000)).astype(int)
    rows, given, classes = logs[some], judgements.given[some], logs.shape[1]

    def loss(log_power: float) -> float:
        fit = log_softmax(rows * np.exp(log_power), axis=1)[np.arange(len(some)), given]
        return -float(np.mean(np.logaddexp(np.log(0.98) + fit, np.log(0.02 / classes))))

    found = minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded")
    return np.asarray(log_softmax(logs * np.exp(float(found.x)), axis=1))


def measure_suspicion(
    judgements: Judgements, tempered: NDArray[np.float64], teacher: Floats | None = None
) -> Suspicion:
    """The figures of each item; `tempered` is what `temper` gives, `teacher` [N, C] is NaN where it was not asked."""
    mean, given, items = judgements.students, judgements.given, np.arange(len(judgements.ids))
    students = np.exp(tempered)
    scores, best, possible = np.log(students + LEAST), students.copy(), mean > 0
    answers = np.full_like(students, 1.0)
    if teacher is not None:
        asked = ~np.isnan(teacher[:, 0])
        answers[asked] = teacher[asked] + LEAST
        scores[asked] = _STUDENT_WEIGHT * scores[asked] + np.log(answers[asked])
        best[asked] = teacher[asked]  # the better judge of what else it could be
        possible[asked] |= teacher[asked] > 0
    possible[items, given] = False
    some = possible.any(axis=1)
    candidate = np.where(possible, scores, -np.inf).argmax(axis=1)

    def of_candidate(table: NDArray[Any]) -> NDArray[Any]:
        """0 where there is no candidate: the argmax of nothing is label 0, which may be the given one."""
        return np.where(some, table[items, candidate], 0)

    chosen = of_candidate(best)
    return Suspicion(
        candidate=np.where(some, candidate, -1),
        margin=of_candidate(mean) - mean[items, given],
        entropy=entr(mean).sum(axis=1),
        log_ratio=np.log((of_candidate(students) + LEAST) / (students[items, given] + LEAST)),
        teacher_log_ratio=np.log(np.where(some, answers[items, candidate] / answers[items, given], 1.0)),
        asymmetry=_asymmetry(judgements, np.where(some, candidate, given)),
        others=np.log((chosen + LEAST) / (np.maximum(1 - best[items, given] - chosen, 0) + LEAST)),
    )


def _asymmetry(judgements: Judgements, candidate: Ints) -> NDArray[np.float64]:
    given, width = judgements.given, len(judgements.labels)
    counts = np.zeros((width, width))
    np.add.at(counts, (given, judgements.students.argmax(axis=1)), 1)
    return np.log((counts[given, candidate] + 1) / (counts[candidate, given] + 1)) * (candidate != given)
