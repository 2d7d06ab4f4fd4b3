"""Decide which label each item is trained with, or why it is left out.

A label from a review takes precedence over one from correction, then the given label, then a pseudo-label.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from tasks.media import Box
from tasks.prompts.prompter import Prompter
from tasks.records import NEITHER, Action, Correction, Example, Origin, Prediction, Sample, Subset


class LeftOutReason(StrEnum):
    """Why an item is not in the training set, or not in one of its exports: the reason codes of the emit stage."""

    CONTAMINATES = "contaminates_evaluation"
    """The item is in the evaluation split, or is a near-duplicate of an item there."""
    WAITING = "waits_for_review"
    NEITHER = "reviewer_said_neither"
    UNREASONED = "no_good_reason"
    """No reason for the item's given label passed the gate, nothing else supports that label, and
    `rationales.without_reason` is `drop_item`."""
    UNTRUSTED = "no_trusted_pseudo_label"
    OVERRULED = "overruled_duplicate"
    """A duplicate or near-duplicate has a label from a stronger origin."""
    CONFLICTING = "conflicting_duplicate"
    """Items with equal content have different labels of the same origin. All of them go to review."""
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"

    # The codes in left_out.jsonl: the format's reader would skip, misread or reject the example.
    TURNS_DO_NOT_ALTERNATE = "turns_do_not_alternate"
    IMAGES_DO_NOT_MATCH = "images_do_not_match"
    VIDEOS_DO_NOT_MATCH = "videos_do_not_match"
    BOXES_DO_NOT_MATCH = "boxes_do_not_match"
    IMAGE_UNREADABLE = "image_unreadable"
    NOT_ONE_IMAGE = "not_one_image"
    NOT_ONE_TURN = "not_one_turn"
    VIDEOS_UNFIT = "videos_unfit"
    SYSTEM_TURN = "system_turn"
    PATH_UNFIT = "path_unfit"
    NO_LABEL = "no_label"
    TOO_LONG = "too_long"


class Decision(NamedTuple):
    """Which label and reason an item would be trained with if it had no duplicates."""

    label: str | None
    """None if there is no label to train on."""
    origin: Origin
    why: str
    reason: str = ""
    """The reason that the model learns to give for the label; empty if the item has none."""
    refused: LeftOutReason | None = None
    """Why the item is left out regardless of its duplicates; None if nothing speaks against it."""
    boxes: tuple[Box, ...] = ()
    """Those that the reason points at."""


def decide_labelled(
    sample: Sample,
    correction: Correction | None,
    rationale: Prediction | None = None,
    *,
    verdict: str | None = None,
    waiting: Literal["keep", "drop"] = "keep",
) -> Decision:
    """Return the decision about a labelled item.

    `rationale` explains the given label, and is used only if the decision keeps that label. `verdict` is a reviewer's
    answer about a conflict with a duplicate: a label, or `neither`. `waiting` says what happens to an item that waits
    for a review: it keeps its label, or it is left out.
    """
    given = sample.given or ""
    reason, boxes = (rationale.reason, rationale.boxes) if rationale else ("", ())
    if verdict is not None:
        return _decide_by_verdict(verdict, reason if verdict == given else "", boxes)
    if correction is None:
        return Decision(given, Origin.GIVEN, "given label", reason, boxes=boxes)
    origin = Origin.GIVEN
    if correction.reviewed:
        origin = Origin.REVIEW
    elif correction.action is Action.RELABEL:
        origin = Origin.CORRECTION
    label = correction.label
    if label != given:
        reason, boxes = (correction.reason, correction.boxes) if correction.has_label_of_teacher else ("", ())
    refused = LeftOutReason.NEITHER if label is None else None
    if waiting == "drop" and correction.action is Action.REVIEW:
        refused = LeftOutReason.WAITING
    return Decision(label, origin, correction.why, reason, refused, boxes)


def decide_pseudo_labelled(prediction: Prediction) -> Decision:
    """Return the decision about a pool item that has a pseudo-label."""
    label = prediction.label
    if label is None:
        return UNTRUSTED
    if prediction.source == "review":
        return Decision(label, Origin.REVIEW, f"reviewer says {label}", prediction.reason, boxes=prediction.boxes)
    p = prediction.probabilities.get(label)
    why = "teacher's label" + (f", p={p:.3f}" if p is not None else "")
    return Decision(label, Origin.PSEUDO, why, prediction.reason, boxes=prediction.boxes)


def decide_pool(pseudo: Decision | None, verdict: str | None) -> Decision:
    """Return the decision about a pool item.

    The label is the reviewer's verdict if there is one, otherwise the pseudo-label. An item with neither is left out.
    """
    if verdict is None:
        return pseudo or UNTRUSTED
    if pseudo is None or pseudo.label != verdict:
        return _decide_by_verdict(verdict)
    return _decide_by_verdict(verdict, pseudo.reason, pseudo.boxes)


UNTRUSTED = Decision(None, Origin.PSEUDO, "see the pseudo_labels stage", refused=LeftOutReason.UNTRUSTED)


def _decide_by_verdict(verdict: str, reason: str = "", boxes: tuple[Box, ...] = ()) -> Decision:
    if verdict == NEITHER:
        return Decision(None, Origin.REVIEW, "reviewer: none of the labels is right", refused=LeftOutReason.NEITHER)
    return Decision(verdict, Origin.REVIEW, f"reviewer says {verdict}", reason, boxes=boxes)


def make_example(sample: Sample, decision: Decision, prompter: Prompter, subset: Subset = Subset.TRAIN) -> Example:
    """Return the training example for a sample, with the label and reason of `decision`; the label must not be None.

    If the pack says so, the reason ends with the item's boxes, unless another label was given when they were drawn; or
    else with those that the reason points at.
    """
    assert decision.label is not None
    boxes = sample.boxes if sample.given in (None, decision.label) else ()
    if not boxes and decision.reason:
        boxes = decision.boxes
    boxes = boxes if prompter.pack.boxes else ()
    return Example(
        sample_id=sample.id,
        messages=prompter.training_turns(sample, decision.label, decision.reason, len(boxes)),
        images=sample.images,
        videos=sample.videos,
        boxes=boxes,
        label=decision.label,
        reason=decision.reason,
        origin=decision.origin,
        why=decision.why,
        source=sample.source,
        task=sample.task,
        subset=subset,
    )


# --- duplicates ----------------------------------------------------------------------------------------------


class MergeEntry(NamedTuple):
    """The facts about an item that `settle_duplicates` needs."""

    content: int
    """A number that stands for the item's content; items with equal content have the same number."""
    label: str | None
    origin: Origin
    refused: LeftOutReason | None
    labelled: bool
    """Whether the item is in the labelled set. If it is refused there, its duplicates in the pool are left out too."""
    open: bool
    """Whether the item's task has no label set. Different answers about the same picture then do not conflict."""
    task: str
    """Items of different tasks are never duplicates, because their questions differ."""


class ItemOutcome(NamedTuple):
    """Whether an item is kept (`reason` is None), or why and because of which `other` item it is left out."""

    reason: LeftOutReason | None
    other: int | None = None
    labels: tuple[str, ...] = ()
    """The labels that conflict; empty unless `reason` is CONFLICTING."""


_Question = tuple[int, str]
"""Content and task of an item. Items with the same question show and ask the same."""
_STRENGTH = {origin: i for i, origin in enumerate(Origin)}
KEPT = ItemOutcome(None)


@dataclass
class _Neighbourhood:
    """Facts about all items that have one question or a question near it."""

    strongest: int
    strongest_equal: int
    """The strongest of the items that have the question itself."""
    strongest_by_label: dict[str | None, int]
    labels: dict[Origin, dict[str, int]]
    """Maps an origin to the labels of the question itself, and each label to the first item that has it."""
    near: tuple[_Question, ...]


def settle_duplicates(
    entries: Sequence[MergeEntry], near: Mapping[int, Sequence[int]], forbidden: Mapping[int, int | None]
) -> list[ItemOutcome]:
    """Return, in the order of `entries`, whether each item is kept or why it is left out.

    `near` maps each content to the contents of its near-duplicates, in both directions. `forbidden` maps each content
    that equals or nearly equals an evaluation item, of whatever task, to that item. A content that only shows a picture
    of the evaluation split is mapped to None.

    Among items of one task with equal content, the one whose label has the strongest origin is kept. If several have
    that origin, the first is kept, or none of them if their labels differ. Near-duplicates with the same label are
    duplicates too; with different labels they are different questions. Only a pool item yields to every near item whose
    label has a stronger origin. In open tasks, only items with equal content are duplicates. Forbidden items don't
    displace others, unless they were refused in the labelled set.
    """
    frequency = Counter(entry.content for entry in entries)
    items: dict[_Question, list[int]] = {}
    for i, entry in enumerate(entries):
        counts = entry.labelled if entry.refused is not None else entry.content not in forbidden
        if counts and (frequency[entry.content] > 1 or entry.content in near):
            items.setdefault((entry.content, entry.task), []).append(i)
    neighbourhoods: dict[_Question, _Neighbourhood] = {}
    kept: dict[_Question, int] = {}
    decided: list[ItemOutcome] = []
    for i, entry in enumerate(entries):
        question = (entry.content, entry.task)
        outcome = KEPT
        if entry.content in forbidden:
            outcome = ItemOutcome(LeftOutReason.CONTAMINATES, forbidden[entry.content])
        elif entry.refused is not None:
            outcome = ItemOutcome(entry.refused)
        elif question in items and entry.open:
            outcome = ItemOutcome(LeftOutReason.DUPLICATE, kept[question]) if question in kept else KEPT
        elif question in items:
            if question not in neighbourhoods:
                neighbourhoods[question] = _collect_neighbourhood(question, entries, items, near.get(entry.content, ()))
            outcome = _settle_among(entry, entries, neighbourhoods[question], kept)
        if outcome.reason is None and question in items:
            kept[question] = i
        decided.append(outcome)
    return decided


def _collect_neighbourhood(
    question: _Question, entries: Sequence[MergeEntry], items: Mapping[_Question, list[int]], near: Sequence[int]
) -> _Neighbourhood:
    def rank(i: int) -> int:
        return _STRENGTH[entries[i].origin]

    others = tuple((content, question[1]) for content in near)
    equal = [i for i in items[question] if not entries[i].open]
    similar = equal + [i for q in others for i in items.get(q, ()) if not entries[i].open]
    by_label: dict[str | None, int] = {}
    for i in sorted(similar, key=rank):
        by_label.setdefault(entries[i].label, i)
    labels: dict[Origin, dict[str, int]] = {}
    for i in equal:
        if (label := entries[i].label) is not None:
            labels.setdefault(entries[i].origin, {}).setdefault(label, i)
    return _Neighbourhood(min(similar, key=rank), min(equal, key=rank), by_label, labels, others)


def _settle_among(
    entry: MergeEntry, entries: Sequence[MergeEntry], neighbourhood: _Neighbourhood, kept: Mapping[_Question, int]
) -> ItemOutcome:
    rivals = [neighbourhood.strongest_equal, neighbourhood.strongest_by_label[entry.label]]
    if not entry.labelled:
        rivals.append(neighbourhood.strongest)
    strongest = min(rivals, key=lambda i: _STRENGTH[entries[i].origin])
    if _STRENGTH[entries[strongest].origin] < _STRENGTH[entry.origin]:
        reason = LeftOutReason.OVERRULED if entry.labelled else _name_duplicate(entry, entries[strongest])
        return ItemOutcome(reason, strongest)
    labels = neighbourhood.labels[entry.origin]
    if len(labels) > 1:
        other = next(i for label, i in labels.items() if label != entry.label)
        return ItemOutcome(LeftOutReason.CONFLICTING, other, tuple(sorted(labels)))
    taught = [kept[q] for q in ((entry.content, entry.task), *neighbourhood.near) if q in kept]
    first = next((i for i in taught if entries[i].label == entry.label), None)
    return KEPT if first is None else ItemOutcome(_name_duplicate(entry, entries[first]), first)


def _name_duplicate(entry: MergeEntry, other: MergeEntry) -> LeftOutReason:
    return LeftOutReason.DUPLICATE if entry.content == other.content else LeftOutReason.NEAR_DUPLICATE
