"""Which pseudo-labels to keep: the most confident ones, for as long as the kept set's expected precision holds."""

from collections.abc import Sequence

from tasks.records import USABLE, Dropped, Prediction

_ROUNDING = 1e-9
"""Three times .95 add up to less than 2.85 in floating point: a set exactly at the target must not be cut for that."""


def keep_trusted(
    predictions: Sequence[Prediction], target_precision: float, stage: str
) -> tuple[list[Prediction], list[Dropped]]:
    """Split predictions into kept and dropped; both together are the input.

    Kept is the largest set of most confident predictions whose mean probability is at least `target_precision`: for
    calibrated probabilities that mean is the set's expected precision. No fixed threshold an item.
    """
    kept: list[Prediction] = []
    dropped: list[Dropped] = []
    usable: list[Prediction] = []
    for p in predictions:
        if p.outcome in USABLE and p.label is not None:
            usable.append(p)
        else:
            detail = p.detail or "no usable answer"
            dropped.append(Dropped(sample_id=p.sample_id, stage=stage, reason=p.outcome, detail=detail))
    usable.sort(key=lambda p: (-confidence(p), p.sample_id))
    total = 0.0
    for rank, p in enumerate(usable, start=1):
        total += confidence(p)
        if total >= target_precision * rank - _ROUNDING:
            kept.append(p)
        else:
            detail = f"p={confidence(p):.3f}: with it the kept set's expected precision falls below {target_precision}"
            dropped.append(Dropped(sample_id=p.sample_id, stage=stage, reason="not_trusted", detail=detail))
    return kept, dropped


def confidence(prediction: Prediction) -> float:
    """Probability of the predicted label; the share of votes where the engine gave no probabilities."""
    label = prediction.label or ""
    if prediction.probabilities:
        return prediction.probabilities.get(label, 0.0)
    votes = sum(prediction.votes.values())
    return prediction.votes.get(label, 0) / votes if votes else 0.0
