"""One decision a sample: which label it is taught with, and why (review > correction > given > pseudo)."""

from collections.abc import Mapping, Sequence
from typing import Literal

from tasks.prompts import Prompter
from tasks.records import (
    Action,
    Correction,
    Dropped,
    Example,
    Message,
    Origin,
    Prediction,
    Sample,
    Sampling,
    content_digest,
)
from tasks.user_turn import user_text

STAGE = "emit"


def merge(
    labelled: Sequence[Sample],
    pool: Sequence[Sample],
    corrections: Mapping[str, Correction],
    pseudo: Mapping[str, Prediction],
    reasons: Mapping[str, str],
    prompter: Prompter,
    *,
    waiting: Literal["keep", "drop"] = "keep",
) -> tuple[list[Example], list[Dropped]]:
    """Decide about every sample; kept and dropped together are `labelled` + `pool`.

    `corrections` and `reasons` (rationales of the *given* label) go by labelled id, `pseudo` (the kept pseudo-labels)
    by pool id. Any of them may be empty when its stage was left out. A pool item of the same content as a labelled
    one is dropped. Of equal labelled items the one decided with the strongest origin stands; where two of the same
    strength have different labels, none is taught. `waiting` says what becomes of items that still wait for review:
    taught with the given label, or dropped.
    """
    kept: list[Example] = []
    dropped: list[Dropped] = []
    decided = {s.id: _labelled_decision(s, corrections.get(s.id), reasons) for s in labelled}
    strongest, contradictory = _standing(labelled, decided)
    seen: dict[str, str] = {}
    for sample in labelled:
        label, origin, why, reason = decided[sample.id]
        content = content_digest(sample)
        correction = corrections.get(sample.id)
        if waiting == "drop" and correction is not None and correction.action is Action.REVIEW:
            dropped.append(_drop(sample, "waits_for_review", why))
        elif label is None:
            dropped.append(_drop(sample, "reviewer_said_neither", why))
        elif origin is not strongest[content]:
            dropped.append(_drop(sample, "overruled_duplicate", f"an equal item's label: {strongest[content]}"))
        elif content in contradictory:
            dropped.append(_drop(sample, "conflicting_duplicate", f"equal items have labels {contradictory[content]}"))
        elif content in seen:
            dropped.append(_drop(sample, "duplicate", f"same content as {seen[content]}"))
        else:
            seen[content] = sample.id
            kept.append(_example(sample, label, reason, origin, why, prompter))
    # What was refused above must not come back by its duplicate in the pool.
    seen = {content_digest(s): s.id for s in labelled} | seen
    for sample in pool:
        prediction = pseudo.get(sample.id)
        content = content_digest(sample)
        if prediction is None or prediction.label is None:
            dropped.append(_drop(sample, "no_trusted_pseudo_label", "see the pseudo_labels stage"))
        elif content in seen:
            dropped.append(_drop(sample, "duplicate", f"same content as {seen[content]}"))
        else:
            seen[content] = sample.id
            p = prediction.probabilities.get(prediction.label)
            why = "teacher's label" + (f", p={p:.3f}" if p is not None else "")
            kept.append(_example(sample, prediction.label, prediction.reason, Origin.PSEUDO, why, prompter))
    return kept, dropped


def _labelled_decision(
    sample: Sample, correction: Correction | None, reasons: Mapping[str, str]
) -> tuple[str | None, Origin, str, str]:
    """(label, origin, why, reason) of a labelled item; a reason only where it speaks for the final label."""
    given = sample.given or ""
    if correction is None:
        return given, Origin.GIVEN, "given label", reasons.get(sample.id, "")
    origin = Origin.GIVEN
    if correction.reviewed:
        origin = Origin.REVIEW
    elif correction.action is Action.RELABEL:
        origin = Origin.CORRECTION
    label = correction.label
    reason = ""
    if label == given:
        reason = reasons.get(sample.id, "")
    elif label == correction.adjudicated:
        reason = correction.reason
    return label, origin, correction.why, reason


def _standing(
    samples: Sequence[Sample], decided: Mapping[str, tuple[str | None, Origin, str, str]]
) -> tuple[dict[str, Origin], dict[str, list[str]]]:
    """By content: the strongest origin among equal items, and their labels where those of that origin differ."""
    strength = list(Origin)
    strongest: dict[str, Origin] = {}
    for sample in samples:
        content, origin = content_digest(sample), decided[sample.id][1]
        strongest[content] = min(origin, strongest.get(content, origin), key=strength.index)
    labels: dict[str, set[str]] = {}
    for sample in samples:
        label, origin, *_ = decided[sample.id]
        content = content_digest(sample)
        if label is not None and origin is strongest[content]:
            labels.setdefault(content, set()).add(label)
    return strongest, {content: sorted(found) for content, found in labels.items() if len(found) > 1}


def _example(sample: Sample, label: str, reason: str, origin: Origin, why: str, prompter: Prompter) -> Example:
    request = prompter.classify(sample, Sampling(), with_reason=bool(reason))
    return Example(
        sample_id=sample.id,
        messages=(
            Message(role="user", content=user_text(request)),
            Message(role="assistant", content=prompter.answer(label, reason)),
        ),
        images=sample.images,
        label=label,
        reason=reason,
        origin=origin,
        why=why,
        source=sample.source,
    )


def _drop(sample: Sample, reason: str, detail: str) -> Dropped:
    return Dropped(sample_id=sample.id, stage=STAGE, reason=reason, detail=detail)
