"""List the warnings at the top of the card: everything in a run that calls for caution."""

from collections.abc import Iterator

from tasks.correction.outcome import describe_agreement
from tasks.models.engines.spec import RULE
from tasks.report.card.facts import Facts
from tasks.storage.html import format_count

_FEW_EXAMPLES = 5
_UNEVEN_CLASSES = 20.0
"""Warn if the largest class has more than this many times the examples of the smallest."""
_REFUSED_SHARE = 0.05
_REPEATED_SHARE = 0.05
"""Warn if more than this share of the reasons repeat another reason."""
_NAMED_LABELS = 12


def is_transductive(facts: Facts) -> bool:
    """Return whether the training set may contain evaluation items."""
    return bool(facts.find_figure("emit", "transductive"))


def list_warnings(facts: Facts, licence: str | None) -> list[str]:
    """Return the warnings as sentences, the most serious first, without the one about a transductive set."""
    return [
        *_check_run(facts),
        *_check_rules(facts),
        *_check_labels(facts),
        *_check_pseudo_labels(facts),
        *_check_reasons(facts),
        *([] if licence else ["No licence is named: nobody else may use this set until its owner grants one."]),
    ]


def _check_rules(facts: Facts) -> Iterator[str]:
    models = [(role, r.stage) for r in facts.records.values() for role, name in r.models.items() if RULE in name]
    for role in dict.fromkeys(role for role, _ in models):
        stages = ", ".join(stage for found, stage in models if found == role)
        yield f"The {role} ({stages}) is {RULE}."


def _check_run(facts: Facts) -> Iterator[str]:
    if facts.failure:
        yield f"The last run failed: {facts.failure}."
    emit = facts.records.get("emit")
    if emit is None:
        yield "The run is not finished: no training set has been emitted."
        return
    if not facts.emitted.count:
        yield "The training set is empty."
    if left_out := facts.find_figure("emit", "left out of an export"):
        examples = format_count(int(left_out), "example")
        yield f"{examples} could not be written in at least one export format: see emit/left_out.jsonl."
    for stage in ("rationales", "pseudo_labels", "correction"):
        record = facts.records.get(stage)
        if record is not None and emit.inputs.get(stage, record.digest) != record.digest:
            yield f"The stage {stage} has run again since the set was emitted. Run the pipeline to update the set."
    for record in facts.records.values():
        if record.costs.failed:
            yield f"{record.stage}: {format_count(record.costs.failed, 'answer')} failed."
        if record.stage.startswith("samples/") and record.dropped > _REFUSED_SHARE * record.read:
            yield f"{record.stage}: {record.dropped:,} of {format_count(record.read, 'item')} could not be used."
    if len({r.code for r in facts.records.values()}) > 1:
        yield "Different versions of the code ran the stages (see Recipe)."


def _check_labels(facts: Facts) -> Iterator[str]:
    if facts.before and "correction" not in facts.records:
        yield "The given labels were not checked: the run has no stage correction."
    waiting = facts.find_figure("correction", "waiting for review")
    if waiting:
        flagged = format_count(int(waiting), "given label")
        yield f"{flagged} flagged as probably wrong may be in the set: no person has reviewed them yet."
    if (record := facts.records.get("correction")) is not None:
        differ = int(facts.find_figure("correction", "disagreements") or 0)
        if advice := describe_agreement(record.read - differ, record.read)[1]:
            yield advice
    if facts.overlaps:
        yield facts.overlaps
    if "correction" in facts.records and not facts.find_figure("correction", "reviewed"):
        yield "No person has reviewed any label, so no label was changed and no estimate of wrong labels is calibrated."
    labels = facts.emitted.labels
    if not labels:
        return
    sizes = {label: found.total() for label, found in labels.items()}
    lost = [label for label in facts.before if label not in sizes]
    if lost:
        yield f"{format_count(len(lost), 'label')} of the labelled set without any example: {_name_labels(lost)}."
    few = [label for label, n in sizes.items() if n < _FEW_EXAMPLES]
    if few:
        yield f"{format_count(len(few), 'label')} with fewer than {_FEW_EXAMPLES} examples: {_name_labels(few)}."
    largest = max(sizes.values())
    smallest = min(sizes.values())
    if largest > _UNEVEN_CLASSES * smallest:
        yield f"The classes are uneven: the largest has {largest:,} examples, the smallest {smallest:,}."


def _check_pseudo_labels(facts: Facts) -> Iterator[str]:
    record = facts.records.get("pseudo_labels")
    if record is None:
        return
    if record.kept == 0:
        items = format_count(record.read, "pool item")
        yield f"No pseudo-label could be trusted ({items}): the pool adds nothing to the set."
    elif facts.find_figure("pseudo_labels", "lower") is None or facts.find_figure("pseudo_labels", "calibrated") == 0:
        yield "The pseudo-labels' expected precision is the teacher's own estimate, not calibrated on known labels."


def _check_reasons(facts: Facts) -> Iterator[str]:
    diversity = facts.diversity
    if diversity is not None and diversity.repeated > _REPEATED_SHARE:
        yield (
            f"{diversity.repeated:.0%} of the reasons repeat another word for word: students trained on very similar "
            "reasons get worse."
        )
    if broken := sum("\ufffd" in reason for reason in facts.emitted.reasons):
        yield f"{format_count(broken, 'reason')} with broken characters (U+FFFD) among those measured."
    near = facts.find_figure("rationales", "near-duplicates after")
    if near is not None and near > _REPEATED_SHARE:
        yield f"{near:.0%} of the kept reasons are near-duplicates of another."


def _name_labels(labels: list[str]) -> str:
    more = f" and {len(labels) - _NAMED_LABELS} more" if len(labels) > _NAMED_LABELS else ""
    return ", ".join(labels[:_NAMED_LABELS]) + more
