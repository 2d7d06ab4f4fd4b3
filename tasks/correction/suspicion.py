"""Measure how strongly the predictions contradict each given label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import entr, log_softmax

from tasks.correction.judgements import Floats, Ints, Judgements

LEAST = 1e-3
"""Added to probabilities to limit log-ratios, because beyond log(1000) they say little about accuracy."""
_STUDENT_WEIGHT = 0.6
"""Weight of the students' log-probabilities in the choice of the candidate; each teacher's have weight 1."""


@dataclass(frozen=True)
class Suspicion:
    """The evidence about each of N items. The candidate is the most probable label other than the given one."""

    candidate: Ints
    """[N] index of the candidate; -1 if no other label has a probability above 0."""
    margin: Floats
    """[N] the students' mean probability of the candidate minus that of the given label. Above 0 the students disagree
    with the given label."""
    entropy: Floats
    """[N] entropy of the students' mean probabilities, in nats."""
    log_ratio: NDArray[np.float64]
    """[N] log(p(candidate) / p(given label)) from the students' tempered probabilities, used for the calibration."""
    teacher_log_ratios: NDArray[np.float64]
    """[N, T] the same log-ratio from each teacher's probabilities; 0 for items without an answer.
    Without teachers there is one column of zeros, so that as many random numbers are drawn as with one."""
    asymmetry: NDArray[np.float64]
    """[N] log((a + 1) / (b + 1)): a is the number of items with the same given label that are predicted as the
    candidate, and b is the number of items for which it is the other way round.

    Two labels that are confused in both directions are hard to tell apart. Confusion in one direction suggests a
    labeller's habit.
    """
    others: NDArray[np.float64]
    """[N] log odds of the candidate against all remaining labels, without the given one."""


def temper(judgements: Judgements) -> NDArray[np.float64]:
    """Return the students' log-probabilities [N, C], scaled by the temperature that explains the given labels best.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) makes overconfident and
    underconfident students comparable. 2 % of the labels are assumed to be noise, so that a few confident
    contradictions do not determine the temperature.
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
    judgements: Judgements, tempered: NDArray[np.float64], teachers: Sequence[Floats] = ()
) -> Suspicion:
    """Return the evidence about each item.

    `tempered` [N, C] is the result of `temper`. Each of `teachers` [N, C] contains one teacher's probabilities; the row
    of an item without an answer is NaN.
    """
    mean = judgements.students
    given = judgements.given
    items = np.arange(len(judgements.ids))
    students = np.exp(tempered)
    scores, best, possible = np.log(students + LEAST), students.copy(), mean > 0
    logs = [np.log(np.nan_to_num(teacher, nan=1.0) + LEAST) for teacher in teachers]
    if teachers:
        answered = np.stack([~np.isnan(teacher[:, 0]) for teacher in teachers])
        asked = answered.any(axis=0)
        scores[asked] *= _STUDENT_WEIGHT
        for teacher, log, theirs in zip(teachers, logs, answered, strict=True):
            log[~theirs] = 0.0
            scores += log
            possible[theirs] |= teacher[theirs] > 0
        # the teachers know better what else the item could be
        best[asked] = np.nan_to_num(np.stack(teachers)).sum(axis=0)[asked] / answered.sum(axis=0)[asked, None]
    possible[items, given] = False
    some = possible.any(axis=1)
    candidate = np.where(possible, scores, -np.inf).argmax(axis=1)

    def pick_candidate(table: NDArray[Any]) -> NDArray[Any]:
        """Return the candidate's column, or 0 where there is none (argmax then gives label 0, maybe the given one)."""
        return np.where(some, table[items, candidate], 0)

    chosen = pick_candidate(best)
    return Suspicion(
        candidate=np.where(some, candidate, -1),
        margin=pick_candidate(mean) - mean[items, given],
        entropy=entr(mean).sum(axis=1),
        log_ratio=np.log((pick_candidate(students) + LEAST) / (students[items, given] + LEAST)),
        teacher_log_ratios=np.stack(
            [np.where(some, log[items, candidate] - log[items, given], 0.0) for log in logs], axis=1
        )
        if logs
        else np.zeros((len(items), 1)),
        asymmetry=_measure_asymmetry(judgements, np.where(some, candidate, given)),
        others=np.log((chosen + LEAST) / (np.maximum(1 - best[items, given] - chosen, 0) + LEAST)),
    )


def _measure_asymmetry(judgements: Judgements, candidate: Ints) -> NDArray[np.float64]:
    given = judgements.given
    width = len(judgements.labels)
    counts = np.zeros((width, width))
    np.add.at(counts, (given, judgements.students.argmax(axis=1)), 1)
    return np.log((counts[given, candidate] + 1) / (counts[candidate, given] + 1)) * (candidate != given)
