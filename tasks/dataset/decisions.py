"""Decide which label each sample is trained with (review > correction > given > pseudo), or why it is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from tasks.prompts.prompter import Prompter
from tasks.records import NEITHER, Action, Correction, Example, Origin, Prediction, Sample, Subset


class Reason(StrEnum):
    """Why an item is not in the training set: the reason codes of the emit stage."""

    CONTAMINATES = "contaminates_evaluation"
    """The item is in the evaluation split, or is a near-duplicate of an item there."""
    WAITING = "waits_for_review"
    NEITHER = "reviewer_said_neither"
    UNREASONED = "no_good_reason"
    """No reason for its given label passed the gate, nothing else supports the label, and
    `rationales.without_reason` is `drop_item`."""
    UNTRUSTED = "no_trusted_pseudo_label"
    OVERRULED = "overruled_duplicate"
    """The label of a duplicate or near-duplicate has the stronger origin."""
    CONFLICTING = "conflicting_duplicate"
    """Duplicates or near-duplicates have different labels of the same origin. All of them go to review."""
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"


class Decision(NamedTuple):
    """How an item would be trained if there were no duplicates of it."""

    label: str | None
    """None if there is no label to train on."""
    origin: Origin
    why: str
    reason: str = ""
    """The reason that the model learns to give for the label; empty if there is none."""
    refused: Reason | None = None
    """Why the item is left out regardless of its duplicates; None if it is not."""


def decide_labelled(
    sample: Sample,
    correction: Correction | None,
    reason: str = "",
    *,
    verdict: str | None = None,
    waiting: Literal["keep", "drop"] = "keep",
) -> Decision:
    """Return the decision about a labelled item.

    `reason` explains the given label and is used only if that label is final. `verdict` is a reviewer's answer about a
    conflict with a duplicate: a label, or `neither`. `waiting` says what happens to items that wait for review.
    """
    given = sample.given or ""
    if verdict is not None:
        return _by_verdict(verdict, reason if verdict == given else "")
    if correction is None:
        return Decision(given, Origin.GIVEN, "given label", reason)
    origin = Origin.GIVEN
    if correction.reviewed:
        origin = Origin.REVIEW
    elif correction.action is Action.RELABEL:
        origin = Origin.CORRECTION
    label = correction.label
    spoken = reason if label == given else correction.reason if label == correction.adjudicated else ""
    refused = Reason.NEITHER if label is None else None
    if waiting == "drop" and correction.action is Action.REVIEW:
        refused = Reason.WAITING
    return Decision(label, origin, correction.why, spoken, refused)


def decide_pseudo_labelled(prediction: Prediction) -> Decision:
    """Return the decision about a pool item that has a pseudo-label."""
    label = prediction.label
    if label is None:
        return UNTRUSTED
    if prediction.source == "review":
        return Decision(label, Origin.REVIEW, f"reviewer says {label}", prediction.reason)
    p = prediction.probabilities.get(label)
    why = "teacher's label" + (f", p={p:.3f}" if p is not None else "")
    return Decision(label, Origin.PSEUDO, why, prediction.reason)


def decide_pool(pseudo: Decision | None, verdict: str | None) -> Decision:
    """Return the decision about a pool item: the reviewer's verdict, else its pseudo-label, else leave it out."""
    if verdict is not None:
        return _by_verdict(verdict, pseudo.reason if pseudo is not None and pseudo.label == verdict else "")
    return pseudo or UNTRUSTED


UNTRUSTED = Decision(None, Origin.PSEUDO, "see the pseudo_labels stage", refused=Reason.UNTRUSTED)


def _by_verdict(verdict: str, reason: str) -> Decision:
    if verdict == NEITHER:
        return Decision(None, Origin.REVIEW, "reviewer: none of the labels is right", refused=Reason.NEITHER)
    return Decision(verdict, Origin.REVIEW, f"reviewer says {verdict}", reason)


def make_example(sample: Sample, decision: Decision, prompter: Prompter, subset: Subset = Subset.TRAIN) -> Example:
    """Return the training example of a sample with the label and reason of `decision`, whose label must be set."""
    assert decision.label is not None
    return Example(
        sample_id=sample.id,
        messages=prompter.training_turns(sample, decision.label, decision.reason),
        images=sample.images,
        label=decision.label,
        reason=decision.reason,
        origin=decision.origin,
        why=decision.why,
        source=sample.source,
        task=sample.task,
        subset=subset,
    )


# --- duplicates ----------------------------------------------------------------------------------------------


class Stand(NamedTuple):
    """What is needed of an item to settle its duplicates."""

    content: int
    """Number of its content; items with equal content have the same number."""
    label: str | None
    origin: Origin
    refused: Reason | None
    labelled: bool
    """Whether it is in the labelled set. If it was refused there, its duplicate in the pool is left out too."""
    open: bool
    """Whether its task has no label set; then different texts for the same picture do not conflict."""
    task: str
    """Items of different tasks are never duplicates of each other, because they are asked different questions."""


class Fate(NamedTuple):
    """Why an item is left out, and because of which other item. If `reason` is None, the item is kept."""

    reason: Reason | None
    other: int | None = None
    labels: tuple[str, ...] = ()
    """The labels in conflict."""


_Question = tuple[int, str]
"""Content and task: items with the same question show and ask the same."""
_STRENGTH = {origin: i for i, origin in enumerate(Origin)}
TAUGHT = Fate(None)


@dataclass
class _Around:
    """The items with one question and with the questions near it."""

    strongest: int
    labels: dict[Origin, dict[str, int]]
    """Per origin, each label and the first item that has it."""
    questions: tuple[_Question, ...]


def settle_duplicates(
    stands: Sequence[Stand], near: Mapping[int, Sequence[int]], forbidden: Mapping[int, int | None]
) -> list[Fate]:
    """Return for each item, in order, whether it is kept or why it is left out.

    `near` maps each content to the contents near it, in both directions. `forbidden` maps each content that is in the
    evaluation split, or near it, to the evaluation item (None if there are several), regardless of the task.

    Among duplicates and near-duplicates of one task, the item whose label has the strongest origin is kept, and of
    several the first. If their labels differ, all of them are left out. Items of open tasks are left out only for
    equal items. Forbidden items don't displace others, unless they were refused in the labelled set.
    """
    often = Counter(stand.content for stand in stands)
    items: dict[_Question, list[int]] = {}
    for i, stand in enumerate(stands):
        counts = stand.labelled if stand.refused is not None else stand.content not in forbidden
        if counts and (often[stand.content] > 1 or stand.content in near):
            items.setdefault((stand.content, stand.task), []).append(i)
    around: dict[_Question, _Around] = {}
    taught: dict[_Question, int] = {}
    decided: list[Fate] = []
    for i, stand in enumerate(stands):
        fate, question = TAUGHT, (stand.content, stand.task)
        if stand.content in forbidden:
            fate = Fate(Reason.CONTAMINATES, forbidden[stand.content])
        elif stand.refused is not None:
            fate = Fate(stand.refused)
        elif question in items and stand.open:
            fate = Fate(Reason.DUPLICATE, taught[question]) if question in taught else TAUGHT
        elif question in items:
            if question not in around:
                around[question] = _around(question, stands, items, near.get(stand.content, ()))
            fate = _among_others(stand, stands, around[question], taught)
        if fate.reason is None and question in items:
            taught[question] = i
        decided.append(fate)
    return decided


def _around(
    question: _Question, stands: Sequence[Stand], items: Mapping[_Question, list[int]], near: Sequence[int]
) -> _Around:
    questions = (question, *((content, question[1]) for content in near))
    like = [i for q in questions for i in items.get(q, ()) if not stands[i].open]
    labels: dict[Origin, dict[str, int]] = {}
    for i in like:
        if (label := stands[i].label) is not None:
            labels.setdefault(stands[i].origin, {}).setdefault(label, i)
    return _Around(min(like, key=lambda i: _STRENGTH[stands[i].origin]), labels, questions)


def _among_others(stand: Stand, stands: Sequence[Stand], around: _Around, taught: Mapping[_Question, int]) -> Fate:
    strongest = stands[around.strongest]
    if _STRENGTH[strongest.origin] < _STRENGTH[stand.origin]:
        return Fate(Reason.OVERRULED if stand.labelled else _kind(stand, strongest), around.strongest)
    rivals = around.labels[stand.origin]
    if len(rivals) > 1:
        other = next(i for label, i in rivals.items() if label != stand.label)
        return Fate(Reason.CONFLICTING, other, tuple(sorted(rivals)))
    first = next((taught[q] for q in around.questions if q in taught), None)
    return TAUGHT if first is None else Fate(_kind(stand, stands[first]), first)


def _kind(stand: Stand, other: Stand) -> Reason:
    return Reason.DUPLICATE if stand.content == other.content else Reason.NEAR_DUPLICATE
