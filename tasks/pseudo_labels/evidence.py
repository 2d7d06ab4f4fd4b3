# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (scipy publishes no types)
"""What speaks for a pseudo-label, in figures: the teacher's own sureness, and what others say of the same item."""

from collections.abc import Iterable, Mapping, Sequence
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from tasks.records import USABLE, Prediction, Record

LEAST = 1e-3
"""Probabilities below this are taken for equal: beyond it a softmax tells how sure it is, not how right."""

FEATURES = ("confidence", "margin", "unanimity", "described", "students", "second", "second_asked")
"""The columns of `encode_evidence`, in order. All but the last can only speak for a label the more, the larger they are."""


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


def collect_evidence(
    prediction: Prediction,
    *,
    direct: Prediction | None = None,
    students: Sequence[Prediction] = (),
    second: Prediction | None = None,
) -> Evidence:
    """The evidence for the label of a usable `prediction`.

    `direct` is the same teacher's answer without a description, `students` one answer a repeat, each of a student that
    did not see the item.
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


def confidence(prediction: Prediction) -> float:
    """Probability of the predicted label; the share of votes where the engine gave no probabilities."""
    label = prediction.label or ""
    if prediction.probabilities:
        return prediction.probabilities.get(label, 0.0)
    votes = sum(prediction.votes.values())
    return prediction.votes.get(label, 0) / votes if votes else 0.0


def compute_log_ratio(predictions: Iterable[Prediction], label: str) -> float | None:
    """log(P(label) / P(likeliest other label)), averaged over `predictions` and cut at ±log(1 / LEAST).

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
    """[N, len(FEATURES)]; what is not known is 0: it speaks neither for nor against.

    Confidence is in log odds, cut like `compute_log_ratio`; margin and unanimity are 0 at their best and negative below.
    """
    rows = [
        (
            _log_odds(e.vote_share if e.probability is None else e.probability),
            0.0 if e.margin is None else e.margin - 1,
            0.0 if e.vote_share is None else e.vote_share - 1,
            e.described or 0.0,
            e.students or 0.0,
            e.second or 0.0,
            float(e.second is not None),
        )
        for e in found
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))


def is_usable(prediction: Prediction) -> bool:
    """Whether the answer was read and names a label."""
    return prediction.outcome in USABLE and prediction.label is not None


def _shares(prediction: Prediction) -> Mapping[str, float]:
    return prediction.probabilities or {prediction.label or "": 1.0}


def _margin(probabilities: Mapping[str, float], label: str) -> float:
    best = max((p for other, p in probabilities.items() if other != label), default=0.0)
    return probabilities.get(label, 0.0) - best


def _log_odds(p: float | None) -> float:
    return float(logit(min(max(p or 0.0, LEAST), 1 - LEAST)))
