"""Collect the evidence for a pseudo-label: the teacher's confidence, and the answers of other models."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from tasks.records import USABLE, Prediction, Record

LEAST = 1e-3
"""Smaller probabilities are raised to this, because they say no more about correctness."""

FEATURES = ("confidence", "margin", "unanimity", "described", "students", "second", "second_asked")
"""The columns of `encode_evidence`. In all but the last, a larger value is stronger evidence for the label."""


class Evidence(Record):
    """The evidence for one predicted label. A value is None if its model was not asked or gave no usable answer."""

    probability: float | None = None
    """The teacher's probability of the label, averaged over its reasons."""
    margin: float | None = None
    """Probability of the label minus that of the most probable other label."""
    vote_share: float | None = None
    """The label's share of the teacher's votes."""
    described: float | None = None
    """log(P(label) / P(most probable other label)), from the teacher when asked without its own description."""
    students: float | None = None
    """The same log ratio, from the students that were not trained on the item."""
    second: float | None = None
    """The same log ratio, from the second teacher."""

    @property
    def confidence(self) -> float | None:
        """The teacher's probability of the label, or the label's share of votes if there are no probabilities."""
        return self.vote_share if self.probability is None else self.probability


@dataclass(frozen=True)
class Opinions:
    """The answers of all models about one set, keyed by sample id.

    There is one object per set, because the pool may use the same ids as the labelled set.
    """

    teacher: Mapping[str, Prediction]
    direct: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])
    """The teacher's answers when asked without its own description; empty for packs without descriptions."""
    students: tuple[Mapping[str, Prediction], ...] = ()
    """One mapping per repeat; the answers come from students that were not trained on the item."""
    second: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])

    def collect_evidence(self) -> dict[str, Evidence]:
        """Map the sample id of each usable answer of the teacher to the evidence for it."""
        return {
            i: collect_evidence(
                p,
                direct=self.direct.get(i),
                students=[run[i] for run in self.students if i in run],
                second=self.second.get(i),
            )
            for i, p in self.teacher.items()
            if is_usable(p)
        }


def collect_evidence(
    prediction: Prediction,
    *,
    direct: Prediction | None = None,
    students: Sequence[Prediction] = (),
    second: Prediction | None = None,
) -> Evidence:
    """Return the evidence for the label of a usable `prediction`.

    `direct` is the same teacher's answer without its description. `students` has one answer per repeat, each from a
    student that was not trained on the item.
    """
    label = prediction.label or ""
    total = sum(prediction.votes.values())
    return Evidence(
        probability=prediction.probabilities.get(label, 0.0) if prediction.probabilities else None,
        margin=_compute_margin(prediction.probabilities, label) if prediction.probabilities else None,
        vote_share=prediction.votes.get(label, 0) / total if total else None,
        described=compute_log_ratio([direct], label) if direct else None,
        students=compute_log_ratio(students, label),
        second=compute_log_ratio([second], label) if second else None,
    )


def compute_log_ratio(predictions: Iterable[Prediction], label: str) -> float | None:
    """Return log(P(label) / P(most probable other label)), or None if no prediction is usable.

    The probabilities are means over the usable predictions, and are raised to at least LEAST. A prediction without
    probabilities counts as certain of its label.
    """
    shares = [_read_shares(p) for p in predictions if is_usable(p)]
    if not shares:
        return None
    mine = sum(s.get(label, 0.0) for s in shares) / len(shares)
    others = {other for s in shares for other in s if other != label}
    best = max((sum(s.get(other, 0.0) for s in shares) / len(shares) for other in others), default=0.0)
    return log(max(mine, LEAST)) - log(max(best, LEAST))


def encode_evidence(found: Sequence[Evidence]) -> NDArray[np.float64]:
    """Return the evidence as an array [N, len(FEATURES)]. An unknown value becomes 0, which is neutral.

    The confidence is given in log odds, clipped to LEAST and 1 - LEAST; an unknown one counts as LEAST. Margin and
    unanimity are at most 0.
    """
    rows = [
        (
            e.confidence or 0.0,
            0.0 if e.margin is None else e.margin - 1,
            0.0 if e.vote_share is None else e.vote_share - 1,
            e.described or 0.0,
            e.students or 0.0,
            e.second or 0.0,
            float(e.second is not None),
        )
        for e in found
    ]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))
    table[:, 0] = logit(table[:, 0].clip(LEAST, 1 - LEAST))
    return table


def is_usable(prediction: Prediction) -> bool:
    """Return whether the answer could be read and contains a label."""
    return prediction.outcome in USABLE and prediction.label is not None


def _read_shares(prediction: Prediction) -> Mapping[str, float]:
    return prediction.probabilities or {prediction.label or "": 1.0}


def _compute_margin(probabilities: Mapping[str, float], label: str) -> float:
    best = max((p for other, p in probabilities.items() if other != label), default=0.0)
    return probabilities.get(label, 0.0) - best
