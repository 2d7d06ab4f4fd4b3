"""What a student is taught in each step of the ablation: the same way from raw labels to the emitted set and beyond."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tasks.evaluation.results import Results
from tasks.records import Example, Origin, Sample, Split, Subset


class Variant(StrEnum):
    """A training set that a student is measured on, from the poorest on."""

    RAW = "raw"
    """The labelled set as it came."""
    RATIONALES = "rationales"
    """The same with the reasons that passed the gate."""
    PSEUDO = "pseudo"
    """The labelled set as it came, and the trusted pseudo-labels."""
    CORRECTED = "corrected"
    """The labelled set after correction."""
    ALL = "all"
    """The emitted set."""
    PHASED = "phased"
    """The emitted set, then its pseudo-labelled part once more."""
    CEILING = "ceiling"
    """The emitted items with their true labels, all else alike: what no pipeline can beat by labels. Where known."""


BEST_FIRST = (Variant.ALL, Variant.CORRECTED, Variant.PSEUDO, Variant.RAW)
"""Whose students predict a test set: those of the first that there is."""


@dataclass(frozen=True)
class Phase:
    """One training: items, each with the label it is taught with as `given`, and reasons by id."""

    items: tuple[Sample, ...]
    reasons: Mapping[str, str]
    share: float = 1.0
    """Of the variant's steps."""


_SECOND_PHASE = 0.3
"""Share of the steps in PHASED that goes to the pseudo-labelled part alone."""


def plan_phases(variant: Variant, results: Results, truth: Mapping[str, str] | None = None) -> tuple[Phase, ...]:
    """Return the trainings that make the student of `variant`, in order; none where the run left nothing for it.

    `truth` (true label by sample id) is for CEILING alone and must know each emitted item: KeyError otherwise.
    """
    allowed = {i: s for i, s in results.labelled.items() if i not in results.barred}
    raw = tuple(allowed.values())
    trusted = tuple(
        _with(results.pool[i], p.label)
        for i, p in results.pseudo.items()
        if i in results.pool and i not in results.barred
    )
    taught = _emitted(results)
    emitted = tuple(item for item, _ in taught)
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
            kept = tuple(_with(s, c.label) if c else s for s, c in decided if c is None or c.label is not None)
            return (Phase(kept, {}),) if results.corrections else ()
        case Variant.ALL:
            return (Phase(emitted, reasons),) if emitted else ()
        case Variant.PHASED:
            second = tuple(item for item, example in taught if example.origin is Origin.PSEUDO)
            if not second:
                return ()
            return Phase(emitted, reasons, 1 - _SECOND_PHASE), Phase(second, reasons, _SECOND_PHASE)
        case Variant.CEILING:
            if truth is None or not emitted:
                return ()
            fitting = {s.id: reasons[s.id] for s in emitted if s.id in reasons and s.given == truth[s.id]}
            return (Phase(tuple(_with(s, truth[s.id]) for s in emitted), fitting),)


def _emitted(results: Results) -> list[tuple[Sample, Example]]:
    """The emitted training part with its items as they are taught, its mix aside (it has no label to be scored on)."""
    samples = {(s.source, s.id): s for s in (*results.pool.values(), *results.labelled.values())}
    examples = [e for e in results.emitted if e.origin is not Origin.MIX and e.subset is Subset.TRAIN]
    count = Counter(e.sample_id for e in examples)
    taught: list[tuple[Sample, Example]] = []
    for example in examples:
        item = _with(samples[example.source, example.sample_id], example.label)
        if count[item.id] > 1 and item.split is not Split.LABELLED:
            # reasons go by id: the item of the labelled set keeps it, and its reason
            item = item.model_copy(update={"id": f"{item.id} ({item.split})"})
        taught.append((item, example))
    return taught


def _with(sample: Sample, label: str | None) -> Sample:
    return sample.model_copy(update={"given": label})
