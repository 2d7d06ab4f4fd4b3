"""Collect the evidence for a pseudo-label: the teacher's confidence, and the answers of other models."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from tasks.records import USABLE, Prediction, Record

LEAST = 1e-3
"""Smaller probabilities are raised to this, because they say no more about correctness."""

FEATURES = ("confidence", "margin", "unanimity", "described", "students")
"""The first columns of `encode_evidence`. Two more follow for each teacher but the first: its log ratio for the label,
and whether it answered. In all but the latter, a larger value is stronger evidence for the label. With one
teacher there are two such columns too, so that the same random numbers are drawn as with two."""


class Evidence(Record):
    """The evidence for one predicted label. A value is None if its model was not asked or gave no usable answer."""

    probability: float | None = None
    """The probability of the label by all teachers together (`join_answers`), averaged over a teacher's reasons."""
    margin: float | None = None
    """Probability of the label minus that of the most probable other label."""
    vote_share: float | None = None
    """The label's share of the teachers' votes."""
    described: float | None = None
    """log(P(label) / P(most probable other label)), from the first teacher, asked without its own description."""
    students: float | None = None
    """The same log ratio, from the students that were not trained on the item."""
    teachers: tuple[float | None, ...] = ()
    """The same log ratio from each teacher, in the order of the configuration; None if it gave no answer."""

    @property
    def confidence(self) -> float | None:
        """The teachers' probability of the label, or the label's share of votes if there are no probabilities."""
        return self.vote_share if self.probability is None else self.probability


@dataclass(frozen=True)
class Opinions:
    """The answers of all models about one set, keyed by sample id.

    There is one object per set, because the pool may use the same ids as the labelled set.
    """

    teachers: tuple[Mapping[str, Prediction], ...]
    """One mapping per teacher, in the order of the configuration; a teacher may have been asked about some items only.
    Every item has an answer of the first, which may be unusable."""
    direct: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])
    """The first teacher's answers when asked without its own description; empty for packs without descriptions."""
    students: tuple[Mapping[str, Prediction], ...] = ()
    """One mapping per repeat; the answers come from students that were not trained on the item."""

    def add_answers(self, teacher: int, answers: Mapping[str, Prediction]) -> "Opinions":
        """Return the opinions with further answers of a teacher, which is named by its place."""
        theirs = list(self.teachers)
        theirs[teacher] = {**theirs[teacher], **answers}
        return replace(self, teachers=tuple(theirs))

    def collect_evidence(self, joint: Mapping[str, Prediction]) -> dict[str, Evidence]:
        """Map the sample id of each usable joint label of the teachers to the evidence for it."""
        return {
            i: collect_evidence(
                p,
                direct=self.direct.get(i),
                students=[run[i] for run in self.students if i in run],
                teachers=[run.get(i) for run in self.teachers],
            )
            for i, p in joint.items()
            if is_usable(p)
        }


def collect_evidence(
    prediction: Prediction,
    *,
    direct: Prediction | None = None,
    students: Sequence[Prediction] = (),
    teachers: Sequence[Prediction | None] = (),
) -> Evidence:
    """Return the evidence for the label of a usable `prediction`, which is the teachers' joint answer.

    `direct` is the first teacher's answer without its description. `students` has one answer per repeat, each from a
    student that was not trained on the item. `teachers` has each teacher's own answer, or None if it was not asked.
    """
    label = prediction.label or ""
    total = sum(prediction.votes.values())
    return Evidence(
        probability=prediction.probabilities.get(label, 0.0) if prediction.probabilities else None,
        margin=_compute_margin(prediction.probabilities, label) if prediction.probabilities else None,
        vote_share=prediction.votes.get(label, 0) / total if total else None,
        described=compute_log_ratio([direct], label) if direct else None,
        students=compute_log_ratio(students, label),
        teachers=tuple(compute_log_ratio([p], label) if p else None for p in teachers),
    )


def compute_log_ratio(predictions: Iterable[Prediction], label: str) -> float | None:
    """Return log(P(label) / P(most probable other label)), or None if no prediction is usable.

    The probabilities are means over the usable predictions, and are raised to at least LEAST. A prediction without
    probabilities counts as certain of its label.
    """
    shares = [read_shares(p) for p in predictions if is_usable(p)]
    if not shares:
        return None
    mine = sum(s.get(label, 0.0) for s in shares) / len(shares)
    others = {other for s in shares for other in s if other != label}
    best = max((sum(s.get(other, 0.0) for s in shares) / len(shares) for other in others), default=0.0)
    return log(max(mine, LEAST)) - log(max(best, LEAST))


def encode_evidence(found: Sequence[Evidence]) -> NDArray[np.float64]:
    """Return the evidence as an array with the columns of FEATURES. An unknown value becomes 0, which is neutral.

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
            *(x for ratio in e.teachers[1:] or (None,) for x in (ratio or 0.0, float(ratio is not None))),
        )
        for e in found
    ]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), -1 if rows else len(FEATURES) + 2)
    table[:, 0] = logit(table[:, 0].clip(LEAST, 1 - LEAST))
    return table


def is_usable(prediction: Prediction) -> bool:
    """Return whether the answer could be read and contains a label."""
    return prediction.outcome in USABLE and prediction.label is not None


def read_shares(prediction: Prediction) -> Mapping[str, float]:
    """Return the probabilities of a usable answer; one without any counts as certain of its label."""
    return prediction.probabilities or {prediction.label or "": 1.0}


def _compute_margin(probabilities: Mapping[str, float], label: str) -> float:
    best = max((p for other, p in probabilities.items() if other != label), default=0.0)
    return probabilities.get(label, 0.0) - best
