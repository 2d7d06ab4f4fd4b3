"""Estimate the probability that the teacher's label of each labelled item is correct, to calibrate trust.py on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from tasks.pseudo_labels.evidence import Evidence, is_usable
from tasks.records import NEITHER, Correction, Prediction, Sample

ENOUGH = 20
"""Minimum number of checked items for a calibration. Without a labelled set there may be only a few verdicts."""
_SAME_MISTAKE = 0.5
"""If the given label and the teacher's label are both wrong, they are assumed to be the same with at most this
probability."""
_SHIFT = 1.0
"""Standard deviation, in log odds, of an error that all of correction's probabilities share, before any review."""


@dataclass(frozen=True)
class Targets:
    """N items with a label from the teacher, which saw no given label. Made by `build_targets`; read by `fit_trust`."""

    evidence: tuple[Evidence, ...]
    labels: tuple[str, ...]
    """The teacher's labels."""
    right: NDArray[np.float64]
    """[N] probability that the teacher's label is correct."""
    certain: NDArray[np.bool_]
    """[N] whether `right` is known, and therefore 0 or 1, instead of estimated."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Mean and standard deviation, in log odds, of an error that all estimated probabilities share."""


@dataclass(frozen=True)
class Checked:
    """An item whose teacher's label can be checked against a given label or a verdict."""

    sample: Sample
    prediction: Prediction
    evidence: Evidence
    correction: Correction | None = None
    verdict: str | None = None
    """A reviewer's verdict from the pool's review; `correction` contains its own verdict."""


def build_targets(items: Sequence[Checked]) -> Targets:
    """Estimate the probability that the teacher's label of each item is correct. All predictions must be usable.

    A reviewer's verdict counts as certain. Otherwise the probabilities from the stage `correction` are used; where they
    do not take the teacher's answer into account yet, the given label's probability rises if the teacher agrees. If
    the stage was not run, the given label is assumed to be correct. Wrong given labels then count as the teacher's
    errors, so its precision is underestimated.
    """
    assert all(is_usable(item.prediction) for item in items)
    certain = np.array([_find_verdict(i) is not None or i.correction is None for i in items], dtype=bool)
    plain = np.array([_estimate_correctness(i) for i in items], dtype=np.float64)
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
    """Map sample ids to corrections, leaving out those whose given label is not the sample's current one."""
    given = {s.id: s.given for s in samples}
    return {c.sample_id: c for c in corrections if given.get(c.sample_id) == c.given}


def find_checked(
    samples: Sequence[Sample],
    predictions: Mapping[str, Prediction],
    found: Mapping[str, Evidence],
    corrections: Mapping[str, Correction],
    verdicts: Mapping[str, str],
) -> list[Checked]:
    """Return the samples that have a usable prediction and can be checked against a given label or a verdict.

    The mappings are keyed by sample id; `found` has the evidence for each usable prediction.
    """
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
    """Return whether the teacher's label equals the verdict or, without one, the given label, as 1 or 0."""
    verdict = _find_verdict(item)
    return float(item.prediction.label == (item.sample.given if verdict is None else verdict) and verdict != NEITHER)


def _estimate_correctness(item: Checked) -> float:
    """Return correction's probability of the teacher's label; without one, whether it is the known label."""
    c = item.correction
    return _check_label(item) if c is None or c.p_given is None else _estimate_label(item, c, item.prediction.label)


def estimate_truth(item: Checked) -> dict[str, float]:
    """Return the probability of each of the item's labels: by the verdict, else by correction, else the given label."""
    c, verdict = item.correction, _find_verdict(item)
    if verdict is not None or c is None or c.p_given is None:
        known = item.sample.given if verdict is None else verdict
        return {label: float(label == known) for label in item.sample.labels}
    return {label: _estimate_label(item, c, label) for label in item.sample.labels}


def _estimate_label(item: Checked, c: Correction, label: str | None) -> float:
    """Return correction's probability of `label`.

    Labels other than the given one and the candidate share the probability of 'neither' equally.
    """
    if label == c.given:
        return c.p_given or 0.0
    if label == c.candidate:
        return c.p_candidate or 0.0
    others = len(item.sample.labels) - 1 - (c.candidate is not None)
    return (c.p_neither or 0.0) / max(others, 1)


def _update_by_agreement(item: Checked, believed: float, level: float) -> float:
    """Return `believed`, raised if a teacher with accuracy `level` gave the given label without seeing it."""
    c = item.correction
    if c is None or c.p_given is None or c.adjudicated is not None or item.prediction.label != c.given:
        return believed
    chance = (1 - level) / level * _SAME_MISTAKE
    return believed / (believed + (1 - believed) * chance) if believed > 0 else 0.0


def _estimate_shift(items: Sequence[Checked], plain: Sequence[float]) -> tuple[float, float]:
    """Estimate the common error of correction's probabilities from the reviewed items, as `Targets.shift`.

    This is one Newton step from 0 for the offset of a logistic model with the log odds of those probabilities.
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
