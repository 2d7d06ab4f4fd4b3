"""What a reader of the card must know first: everything in a run that speaks for caution, in plain sentences."""

from collections.abc import Iterator

from tasks.report.card.facts import Facts
from tasks.storage.html import format_count

TRANSDUCTIVE = (
    "Transductive: evaluation items, or near-duplicates of them, were allowed into this training set. Scores on that "
    "evaluation set say nothing about new data."
)
_FEW = 5
_UNEVEN = 20.0
_REFUSED = 0.05
_ALIKE = 0.05
"""Must show 3 of the pipeline's own goals: at most so many of the emitted reasons repeat another."""
_NAMED = 12


def is_transductive(facts: Facts) -> bool:
    """Whether emit says that it let evaluation items in."""
    return bool(facts.figure("emit", "transductive"))


def list_warnings(facts: Facts, licence: str | None) -> list[str]:
    """Sentences, the gravest first; `is_transductive` is not among them, as it stands above everything."""
    return [
        *_about_the_run(facts),
        *_about_labels(facts),
        *_about_pseudo_labels(facts),
        *_about_reasons(facts),
        *([] if licence else ["No licence is named: nobody else may use this set until its owner says how."]),
    ]


def _about_the_run(facts: Facts) -> Iterator[str]:
    emit = facts.records.get("emit")
    if emit is None:
        yield "The run is not finished: no training set has been emitted."
        return
    if not facts.emitted.count:
        yield "The training set is empty."
    if left_out := facts.figure("emit", "left out of an export"):
        yield f"{format_count(int(left_out), 'example')} could not be written in some format: see emit/left_out.jsonl."
    for stage in ("rationales", "pseudo_labels", "correction"):
        record = facts.records.get(stage)
        if record is not None and emit.inputs.get(stage, record.digest) != record.digest:
            yield f"The set is older than the stage {stage}, which has been done anew since: run again to emit it."
    for record in facts.records.values():
        if record.costs.failed:
            yield f"{record.stage}: {format_count(record.costs.failed, 'answer')} failed."
        if record.stage.startswith("samples/") and record.dropped > _REFUSED * record.read:
            yield f"{record.stage}: {record.dropped:,} of {format_count(record.read, 'item')} could not be used."
    if len({r.code for r in facts.records.values()}) > 1:
        yield "The stages were run by different versions of the code (see Recipe)."


def _about_labels(facts: Facts) -> Iterator[str]:
    if facts.before and "correction" not in facts.records:
        yield "The given labels were not checked: the stage correction was left out."
    waiting = facts.figure("correction", "waiting for review")
    if waiting:
        yield f"{format_count(int(waiting), 'given label')} held to be wrong may be taught: no person has judged yet."
    if "correction" in facts.records and not facts.figure("correction", "reviewed"):
        yield "No person has judged any label, so none was changed and no estimate of wrong labels was calibrated."
    labels = facts.emitted.labels
    if not labels:
        return
    sizes = {label: found.total() for label, found in labels.items()}
    lost = [label for label in facts.before if label not in sizes]
    if lost:
        yield f"{format_count(len(lost), 'label')} of the labelled set is in no example: {_listed(lost)}."
    few = [label for label, n in sizes.items() if n < _FEW]
    if few:
        yield f"{format_count(len(few), 'label')} with fewer than {_FEW} examples: {_listed(few)}."
    if max(sizes.values()) > _UNEVEN * min(sizes.values()):
        most, least = max(sizes.values()), min(sizes.values())
        yield f"The classes are uneven: the largest has {most:,} examples, the smallest {least:,}."


def _about_pseudo_labels(facts: Facts) -> Iterator[str]:
    record = facts.records.get("pseudo_labels")
    if record is None:
        return
    if record.kept == 0:
        yield f"None of {format_count(record.read, 'pseudo-label')} could be trusted: the pool adds nothing to the set."
    elif facts.figure("pseudo_labels", "lower") is None or facts.figure("pseudo_labels", "calibrated") == 0:
        yield "The pseudo-labels' expected precision is the teacher's own word: it was not calibrated on known labels."


def _about_reasons(facts: Facts) -> Iterator[str]:
    diversity = facts.diversity
    if diversity is not None and diversity.repeated > _ALIKE:
        yield (
            f"{diversity.repeated:.0%} of the reasons repeat another word for word: reasons too alike make a student "
            "worse."
        )
    if broken := sum("\ufffd" in reason for reason in facts.emitted.reasons):
        yield f"{format_count(broken, 'reason')} of those measured with broken characters (U+FFFD)."
    near = facts.figure("rationales", "near-duplicates after")
    if near is not None and near > _ALIKE:
        yield f"{near:.0%} of the kept reasons are near-duplicates of another."


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more
