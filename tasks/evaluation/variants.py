"""Build the training set of each variant in the ablation, from raw labels to the emitted set."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tasks.evaluation.results import Results
from tasks.records import Example, Origin, Sample, Split, Subset


class Variant(StrEnum):
    """A training set to compare; listed from the poorest to the richest."""

    RAW = "raw"
    """The labelled set with its given labels."""
    RATIONALES = "rationales"
    """RAW with the reasons that passed the gate."""
    PSEUDO = "pseudo"
    """RAW and the trusted pseudo-labels."""
    CORRECTED = "corrected"
    """The labelled set after correction."""
    ALL = "all"
    """The emitted set."""
    SOFT = "soft"
    """ALL, but each pseudo-labelled item is taught with the teacher's probabilities of all labels; only with
    `student.loss: soft`."""
    PHASED = "phased"
    """First the emitted set, then its pseudo-labelled part again."""
    ENSEMBLE = "ensemble"
    """The fold students of `correction`, each trained on its part of RAW: the mean of their probabilities."""
    FUSED = "fused"
    """The same students as one: the mean of what their adapters add to the base."""
    CEILING = "ceiling"
    """The emitted items with their true labels, if known: the upper bound for any correction of labels."""


FROM_FOLDS = frozenset({Variant.ENSEMBLE, Variant.FUSED})
"""Variants that train no student of their own."""
BEST_FIRST = (Variant.ALL, Variant.CORRECTED, Variant.PSEUDO, Variant.RAW)
"""A test set is predicted by the students of the first of these variants that was trained."""


@dataclass(frozen=True)
class Phase:
    """One training. Each of `items` has the label to teach as its `given`; `reasons` maps item id to reason."""

    items: tuple[Sample, ...]
    reasons: Mapping[str, str]
    share: float = 1.0
    """Share of the variant's training steps."""
    soft: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    """Maps item id to the probabilities to teach instead of the label alone."""


_SECOND_PHASE = 0.3
"""Share of the steps of PHASED that train on the pseudo-labelled part alone."""


def plan_variants(
    variants: Iterable[Variant], results: Results, truth: Mapping[str, str]
) -> dict[Variant, tuple[Phase, ...]]:
    """Return the trainings of each variant for which the run has results. `truth` maps item id to true label."""
    ids = Counter(e.sample_id for e in results.emitted if e.label)
    # True labels are found by id, so they are unknown if two items have the same id.
    known = truth if ids.keys() <= truth.keys() and ids.total() == len(ids) else None
    planned = {variant: plan_phases(variant, results, known) for variant in variants}
    return {variant: phases for variant, phases in planned.items() if phases}


def plan_phases(variant: Variant, results: Results, truth: Mapping[str, str] | None = None) -> tuple[Phase, ...]:
    """Return the trainings of a student of `variant`, in the order to run them; empty if the run has no results for it.

    `truth` maps sample id to true label; only CEILING uses it. Raises KeyError if it lacks an emitted item.
    """
    allowed = {i: s for i, s in results.labelled.items() if (s.source, i) not in results.barred}
    raw = tuple(allowed.values())
    trusted = tuple(
        _relabel(results.pool[i], p.label)
        for i, p in results.pseudo.items()
        if i in results.pool and (results.pool[i].source, i) not in results.barred
    )
    taught = _pair_emitted(results)
    emitted = tuple(item for item, _ in taught)
    soft = {item.id: example.probabilities for item, example in taught if example.probabilities}
    reasons = {item.id: example.reason for item, example in taught if example.reason}
    match variant:
        case Variant.RAW:
            return (Phase(raw, {}),) if raw else ()
        case Variant.RATIONALES:
            return (Phase(raw, results.reasons),) if results.reasons else ()
        case Variant.PSEUDO:
            return (Phase(raw + trusted, {}),) if trusted else ()
        case Variant.CORRECTED:
            decided = ((s, results.corrections.get(i)) for i, s in allowed.items())
            kept = tuple(_relabel(s, c.label) if c else s for s, c in decided if c is None or c.label is not None)
            return (Phase(kept, {}),) if results.corrections else ()
        case Variant.ALL:
            return (Phase(emitted, reasons),) if emitted else ()
        case Variant.SOFT:
            return (Phase(emitted, reasons, soft=soft),) if soft else ()
        case Variant.PHASED:
            second = tuple(item for item, example in taught if example.origin is Origin.PSEUDO)
            if not second:
                return ()
            return Phase(emitted, reasons, 1 - _SECOND_PHASE), Phase(second, reasons, _SECOND_PHASE)
        case Variant.CEILING:
            if truth is None or not emitted:
                return ()
            fitting = {s.id: reasons[s.id] for s in emitted if s.id in reasons and s.given == truth[s.id]}
            return (Phase(tuple(_relabel(s, truth[s.id]) for s in emitted), fitting),)
        case Variant.ENSEMBLE | Variant.FUSED:
            return ()


def _pair_emitted(results: Results) -> list[tuple[Sample, Example]]:
    """Return the emitted training examples with their items and the labels to teach, except the mix (unlabelled)."""
    samples = {(s.source, s.id): s for s in (*results.pool.values(), *results.labelled.values())}
    examples = [e for e in results.emitted if e.origin is not Origin.MIX and e.subset is Subset.TRAIN]
    count = Counter(e.sample_id for e in examples)
    taught: list[tuple[Sample, Example]] = []
    for example in examples:
        item = _relabel(samples[example.source, example.sample_id], example.label)
        item = item.model_copy(update={"boxes": example.boxes})
        if count[item.id] > 1 and item.split is not Split.LABELLED:
            # Reasons are found by id: the labelled item keeps its id, the other gets a new one.
            item = item.model_copy(update={"id": f"{item.id} ({item.split})"})
        taught.append((item, example))
    return taught


def _relabel(sample: Sample, label: str | None) -> Sample:
    return sample.model_copy(update={"given": label})
