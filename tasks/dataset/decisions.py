"""One decision a sample: the label it is taught with (review > correction > given > pseudo), or why it is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from tasks.prompts.prompter import Prompter
from tasks.records import NEITHER, Action, Correction, Example, Origin, Prediction, Sample, Subset


class Reason(StrEnum):
    """Why an item is not in the training set: the reason codes of the stage `emit`."""

    CONTAMINATES = "contaminates_evaluation"
    """It is an item of the evaluation split, or nearly."""
    WAITING = "waits_for_review"
    NEITHER = "reviewer_said_neither"
    UNREASONED = "no_good_reason"
    """The rationales gate let no reason for its given label pass, nobody else spoke for it, and the run leaves such
    items out."""
    UNTRUSTED = "no_trusted_pseudo_label"
    OVERRULED = "overruled_duplicate"
    """An equal or near item's label has the stronger origin."""
    CONFLICTING = "conflicting_duplicate"
    """Equal or near items whose labels have the same origin have different ones; all of them go to review."""
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"


class Decision(NamedTuple):
    """What an item would be taught with, taken by itself."""

    label: str | None
    """None: there is nothing to teach."""
    origin: Origin
    why: str
    reason: str = ""
    """Why it has that label, as the student is to say it; empty where nobody said."""
    refused: Reason | None = None
    """Set where it is left out, whatever other items say."""


def decide_labelled(
    sample: Sample,
    correction: Correction | None,
    reason: str = "",
    *,
    verdict: str | None = None,
    waiting: Literal["keep", "drop"] = "keep",
) -> Decision:
    """Return the decision about a labelled item; `reason` is of its *given* label, and stays only where that is final.

    `verdict` is what a person said about it when it conflicted with an item near it: a label, or `neither`.
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
    """Return the decision about a pool item: a person's verdict, else its pseudo-label, else nothing to teach."""
    if verdict is not None:
        return _by_verdict(verdict, pseudo.reason if pseudo is not None and pseudo.label == verdict else "")
    return pseudo or UNTRUSTED


UNTRUSTED = Decision(None, Origin.PSEUDO, "see the pseudo_labels stage", refused=Reason.UNTRUSTED)


def _by_verdict(verdict: str, reason: str) -> Decision:
    if verdict == NEITHER:
        return Decision(None, Origin.REVIEW, "reviewer: none of the labels is right", refused=Reason.NEITHER)
    return Decision(verdict, Origin.REVIEW, f"reviewer says {verdict}", reason)


def make_example(sample: Sample, decision: Decision, prompter: Prompter, subset: Subset = Subset.TRAIN) -> Example:
    """Return the training example of a sample that is taught as `decision` says."""
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
    """How an item stands among those like it."""

    content: int
    """Number of its content: equal items have the same."""
    label: str | None
    origin: Origin
    refused: Reason | None
    labelled: bool
    """It is of the labelled set: what was refused there must not come back by its duplicate in the pool."""
    open: bool
    """Its task has no label set: another text for the same picture is no conflict."""
    task: str
    """Items of different tasks are asked different things: however alike, none yields to the other."""


class Fate(NamedTuple):
    """Why an item is left out, and the item that it must yield to; `reason` None: it is taught."""

    reason: Reason | None
    other: int | None = None
    labels: tuple[str, ...] = ()
    """The labels in conflict."""


_Question = tuple[int, str]
"""Content and task: to equal items, the same is shown and asked."""
_STRENGTH = {origin: i for i, origin in enumerate(Origin)}
TAUGHT = Fate(None)


@dataclass
class _Around:
    """The items of one question and of those near it."""

    strongest: int
    labels: dict[Origin, dict[str, int]]
    """The labels that rest on an origin, each with the first item that has it."""
    questions: tuple[_Question, ...]


def settle_duplicates(
    stands: Sequence[Stand], near: Mapping[int, Sequence[int]], forbidden: Mapping[int, int | None]
) -> list[Fate]:
    """Return what becomes of each item, in order.

    `near` holds the contents near each content, both ways; `forbidden` those of, or near, an evaluation item (content →
    that item, where it is one alone), whatever its task. Of equal or near items of one task, the one whose label has
    the strongest origin stands, and of these the first; if these have different labels, none does. Items of open tasks
    yield to equal ones only. To a forbidden item none yields, unless that was refused.
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
