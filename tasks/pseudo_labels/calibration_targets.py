"""How likely the teacher's label of a labelled item is right: what trust is calibrated on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from tasks.pseudo_labels.evidence import Evidence, is_usable
from tasks.records import NEITHER, Correction, Prediction, Sample

ENOUGH = 20
"""Checked items below which the teacher is not calibrated: a handful of a person's verdicts and no labelled set."""
_SAME_MISTAKE = 0.5
"""At most so often a teacher that errs on an item with a wrong given label says that very label."""
_SHIFT = 1.0
"""Standard deviation, in log odds, of what correction's beliefs may be off by before a person has judged any."""


@dataclass(frozen=True)
class Targets:
    """N labelled items that the teacher labelled blind. Made by `build_targets`; the model of trust is fitted to it."""

    evidence: tuple[Evidence, ...]
    labels: tuple[str, ...]
    """The teacher's."""
    right: NDArray[np.float64]
    """[N] probability that the teacher's label is right."""
    certain: NDArray[np.bool_]
    """[N] whether that is known (0 or 1) rather than believed."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Mean and standard deviation of what, on the scale of log odds, the uncertain beliefs may all be off by."""


@dataclass(frozen=True)
class Checked:
    """A labelled item whose label by the teacher can be checked."""

    sample: Sample
    prediction: Prediction
    evidence: Evidence
    correction: Correction | None = None
    verdict: str | None = None
    """A person's, whether or not there is a correction."""


def build_targets(items: Sequence[Checked]) -> Targets:
    """Return what is known of the teacher's labels of `items`, all of them usable predictions.

    A person's verdict is certain. Else correction's probabilities count; where it did not hear the teacher, that the
    teacher blindly says the given label too speaks for both. Without a correction the given label is taken for right:
    then wrong given labels count as the teacher's errors, and its precision is underestimated.
    """
    assert all(is_usable(item.prediction) for item in items)
    certain = np.array([_find_verdict(i) is not None or i.correction is None for i in items], dtype=bool)
    plain = np.array([_read_belief(i) for i in items], dtype=np.float64)
    known = np.array([_check_label(i) for i in items], dtype=np.float64)
    level = float(np.clip(np.where(certain, known, plain).mean(), 0.05, 0.95)) if items else 0.5
    believed = [_update_by_agreement(i, p, level) for i, p in zip(items, plain.tolist(), strict=True)]
    return Targets(
        evidence=tuple(i.evidence for i in items),
        labels=tuple(i.prediction.label or "" for i in items),
        right=np.where(certain, known, np.array(believed, dtype=np.float64)),
        certain=certain,
        shift=_estimate_shift(items, plain.tolist()),
    )


def match_corrections(samples: Sequence[Sample], corrections: Iterable[Correction]) -> dict[str, Correction]:
    """Return the corrections by sample id that are about the label that the sample has now."""
    given = {s.id: s.given for s in samples}
    return {c.sample_id: c for c in corrections if given.get(c.sample_id) == c.given}


def find_checked(
    samples: Sequence[Sample],
    predictions: Mapping[str, Prediction],
    found: Mapping[str, Evidence],
    corrections: Mapping[str, Correction],
    verdicts: Mapping[str, str],
) -> list[Checked]:
    """Return the samples with a usable prediction that can be checked: against a given label or a verdict."""
    return [
        Checked(s, predictions[s.id], found[s.id], corrections.get(s.id), verdicts.get(s.id))
        for s in samples
        if s.id in found and (s.given is not None or s.id in verdicts)
    ]


def _find_verdict(item: Checked) -> str | None:
    if item.verdict is not None:
        return item.verdict
    return item.correction.verdict if item.correction is not None and item.correction.reviewed else None


def _check_label(item: Checked) -> float:
    """Return 1 or 0 by the person, else by the given label."""
    verdict = _find_verdict(item)
    return float(item.prediction.label == (item.sample.given if verdict is None else verdict) and verdict != NEITHER)


def _read_belief(item: Checked) -> float:
    """Return correction's probability of the teacher's label; a third label has its even share of what is neither's."""
    c, label = item.correction, item.prediction.label
    if c is None or c.p_given is None:
        return _check_label(item)
    if label == c.given:
        return c.p_given
    if label == c.candidate:
        return c.p_candidate or 0.0
    others = len(item.sample.labels) - 1 - (c.candidate is not None)
    return (c.p_neither or 0.0) / max(others, 1)


def _update_by_agreement(item: Checked, believed: float, level: float) -> float:
    """Return `believed` after the teacher, which is right in a share `level`, has blindly said the given label too."""
    c = item.correction
    if c is None or c.p_given is None or c.adjudicated is not None or item.prediction.label != c.given:
        return believed
    chance = (1 - level) / level * _SAME_MISTAKE
    return believed / (believed + (1 - believed) * chance) if believed > 0 else 0.0


def _estimate_shift(items: Sequence[Checked], plain: Sequence[float]) -> tuple[float, float]:
    """Return what the reviewed items say of correction's probabilities, as `Targets.shift`.

    One Newton step from 0 on the offset of a logistic model whose log odds are those probabilities'.
    """
    pairs = [
        (min(max(p, 1e-3), 1 - 1e-3), _check_label(i))
        for i, p in zip(items, plain, strict=True)
        if i.correction is not None and i.correction.reviewed and i.correction.p_given is not None
    ]
    if all(item.correction is None for item in items):
        return 0.0, 0.0
    information = sum(p * (1 - p) for p, _ in pairs) + _SHIFT**-2
    return sum(y - p for p, y in pairs) / information, 1 / sqrt(information)
