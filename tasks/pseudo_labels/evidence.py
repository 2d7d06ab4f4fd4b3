# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (scipy publishes no types)
"""What speaks for a pseudo-label, in figures: how sure the teacher is, and what others say about the same item."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from tasks.records import USABLE, Prediction, Record

LEAST = 1e-3
"""Probabilities below this are taken for equal: beyond it a softmax tells how sure it is, not how right."""

FEATURES = ("confidence", "margin", "unanimity", "described", "students", "second", "second_asked")
"""The columns of `encode_evidence`, in order. All but the last speak for a label the more, the larger they are."""


class Evidence(Record):
    """What is known of one predicted label; None where it was not asked or not said."""

    probability: float | None = None
    """The teacher's, averaged over its reasons."""
    margin: float | None = None
    """Probability of the label minus that of the next."""
    vote_share: float | None = None
    described: float | None = None
    """The teacher asked again without the description it wrote first: log(label / likeliest other label)."""
    students: float | None = None
    """The same ratio of the students that did not see the item."""
    second: float | None = None
    """The same ratio of the second teacher."""

    @property
    def confidence(self) -> float | None:
        """The teacher's own word: the label's probability, or its share of votes where the engine gives none."""
        return self.vote_share if self.probability is None else self.probability


@dataclass(frozen=True)
class Opinions:
    """What each model says about one set, by sample id. (The pool may reuse ids of the labelled set.)"""

    teacher: Mapping[str, Prediction]
    direct: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])
    """The teacher without the description that it wrote first; empty for packs that don't have it describe."""
    students: tuple[Mapping[str, Prediction], ...] = ()
    """One mapping per repeat, of students that did not see the item."""
    second: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])

    def collect_evidence(self) -> dict[str, Evidence]:
        """Return the evidence for each of the teacher's labels; items without a usable answer are missing."""
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

    `direct` is the same teacher's answer without a description, `students` one answer per repeat, each of a student
    that did not see the item.
    """
    label = prediction.label or ""
    total = sum(prediction.votes.values())
    return Evidence(
        probability=prediction.probabilities.get(label, 0.0) if prediction.probabilities else None,
        margin=_margin(prediction.probabilities, label) if prediction.probabilities else None,
        vote_share=prediction.votes.get(label, 0) / total if total else None,
        described=compute_log_ratio([direct], label) if direct else None,
        students=compute_log_ratio(students, label),
        second=compute_log_ratio([second], label) if second else None,
    )


def compute_log_ratio(predictions: Iterable[Prediction], label: str) -> float | None:
    """Return log(P(label) / P(likeliest other label)), averaged over `predictions` and cut at ±log(1 / LEAST).

    A prediction without probabilities counts as sure of its label; None where no prediction is usable.
    """
    shares = [_shares(p) for p in predictions if is_usable(p)]
    if not shares:
        return None
    mine = sum(s.get(label, 0.0) for s in shares) / len(shares)
    others = {other for s in shares for other in s if other != label}
    best = max((sum(s.get(other, 0.0) for s in shares) / len(shares) for other in others), default=0.0)
    return log(max(mine, LEAST)) - log(max(best, LEAST))


def encode_evidence(found: Sequence[Evidence]) -> NDArray[np.float64]:
    """Return [N, len(FEATURES)]; what is not known is 0: it speaks neither for nor against.

    Confidence is in log odds, cut like `compute_log_ratio`; margin and unanimity are 0 at best, negative below.
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
    """Return whether the answer was read and names a label."""
    return prediction.outcome in USABLE and prediction.label is not None


def _shares(prediction: Prediction) -> Mapping[str, float]:
    return prediction.probabilities or {prediction.label or "": 1.0}


def _margin(probabilities: Mapping[str, float], label: str) -> float:
    best = max((p for other, p in probabilities.items() if other != label), default=0.0)
    return probabilities.get(label, 0.0) - best
