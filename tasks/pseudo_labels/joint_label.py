"""Choose one label from the answers of several teachers, weighted by how well each predicts the labelled set."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from tasks.pseudo_labels.calibration_targets import Checked, estimate_truth
from tasks.pseudo_labels.evidence import LEAST, is_usable, read_shares
from tasks.records import Prediction

Weights = NDArray[np.float64]

_SPREAD = 0.5
_LARGEST = 3.0
"""Weights are pulled towards 1 / (number of teachers), because teachers make some mistakes together."""


def fit_weights(items: Sequence[Checked], teachers: Sequence[Mapping[str, Prediction]]) -> Weights:
    """Return each teacher's weight [T]: the power of its probabilities in `join_answers`.

    The weights give the labelled items' probable labels (`estimate_truth`) the highest likelihood. A strong teacher
    gets a large one, and so does one that is less sure than it could be. `items` are the labelled set's.
    """
    start = np.full(len(teachers), 1 / len(teachers))
    rows: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for item in items if len(teachers) > 1 else ():
        answers = [run.get(item.sample.id) for run in teachers]
        if sum(p is not None and is_usable(p) for p in answers) > 1:
            truth = estimate_truth(item)
            rows.append((_tabulate_logs(answers, list(truth)), np.array(list(truth.values()))))

    def loss(weights: Weights) -> float:
        fit = sum(float(truth @ log_softmax(weights @ logs)) for logs, truth in rows)
        return -fit + 0.5 * float(np.sum(((weights - start) / _SPREAD) ** 2))

    if not rows:
        return start
    return np.asarray(minimize(loss, start, bounds=[(0.0, _LARGEST)] * len(teachers)).x)


def join_answers(answers: Sequence[Prediction | None], weights: Weights) -> Prediction:
    """Return one prediction from the teachers' answers about an item; None stands for one that was not asked.

    A single usable answer is returned as it is. Of several, the probabilities are multiplied, each raised to its
    teacher's weight. Reason and model are those of the teacher with the largest weight that chose the same label.
    """
    given = [p for p in answers if p is not None]
    usable = [(w, p) for w, p in zip(weights.tolist(), answers, strict=True) if p is not None and is_usable(p)]
    if len(usable) < 2:
        return usable[0][1] if usable else given[0]
    labels = list(dict.fromkeys(label for _, p in usable for label in read_shares(p)))
    shares = softmax(np.array([w for w, _ in usable]) @ _tabulate_logs([p for _, p in usable], labels))
    label = labels[int(shares.argmax())]
    same = [(w, p) for w, p in usable if p.label == label]
    best = max(same or usable, key=lambda pair: pair[0])[1]
    return best.model_copy(
        update={
            "label": label,
            "probabilities": dict(zip(labels, shares.tolist(), strict=True)),
            "votes": dict(sum((Counter(p.votes) for _, p in usable), Counter[str]())),
            "reason": best.reason if same else "",
            "boxes": best.boxes if same else (),
        }
    )


def join_all(teachers: Sequence[Mapping[str, Prediction]], weights: Weights) -> dict[str, Prediction]:
    """Return the joint prediction about each item, keyed by sample id."""
    return {i: join_answers([run.get(i) for run in teachers], weights) for i in teachers[0]}


def _tabulate_logs(answers: Sequence[Prediction | None], labels: Sequence[str]) -> NDArray[np.float64]:
    """Return the log-probabilities [T, C] of the answers; the row of one that is not usable is 0."""
    logs = np.zeros((len(answers), len(labels)))
    for row, answer in zip(logs, answers, strict=True):
        if answer is not None and is_usable(answer):
            shares = read_shares(answer)
            row[:] = np.log([shares.get(label, 0.0) + LEAST for label in labels])
    return logs
