"""Read the boxes in the reason of an answer, place them on the item's images, and compare those of several votes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.media import Box
from tasks.prompts.box_forms import find_boxes, remove_boxes
from tasks.prompts.boxes import BadBox, check_box, compute_overlap
from tasks.records import Generation, Prediction, Request, Sample

SAME = 0.5
"""Two votes point at the same place if their boxes overlap (shared by covered area) by at least this."""


@dataclass(frozen=True)
class PointingReason:
    """A reason without its boxes, the boxes in pixels of the item's upright images, and why others are left out."""

    text: str
    boxes: tuple[Box, ...] = ()
    faults: tuple[str, ...] = ()


def read_pointing(reason: str, request: Request, generation: Generation) -> PointingReason:
    """Return the reason of an answer to `request`, with its boxes if the request asks for any.

    Coordinates and numbers of pictures refer to the images that the model was shown, at the size at which it saw them:
    a prompt that was too long may have lost some images, and all of them pixels.
    """
    form = request.boxes
    if form is None:
        return PointingReason(reason)
    grids = [seen for seen in generation.sides if seen is not None]
    shown = [place for place, seen in enumerate(generation.sides) if seen is not None]
    if not generation.sides:
        shown = list(range(len(request.images)))
    try:
        text, found = find_boxes(reason, form, grids if form.in_pixels else None)
    except BadBox as bad:
        return PointingReason(remove_boxes(reason), faults=(bad.detail,))
    if form.in_pixels and found and not generation.sides:
        return PointingReason(text, faults=("the engine does not say at which size the model saw the images",))
    boxes: list[Box] = []
    faults: list[str] = []
    for raw in found:
        try:
            box = check_box(raw, [request.images[place] for place in shown])
        except BadBox as bad:
            faults.append(bad.detail)
        else:
            boxes.append(box.model_copy(update={"image": shown[box.image]}))
    return PointingReason(text, tuple(dict.fromkeys(boxes)), tuple(faults))


def choose_vote(votes: Sequence[PointingReason]) -> tuple[int, PointingReason]:
    """Return the place of the vote whose reason is used, and this reason with the boxes on which the votes agree.

    A box is kept if more than half of the votes, its own among them, have one at the same place (`SAME`). The first
    vote with such a box is used, or the first vote if there is none.
    """
    agreed = [tuple(box for box in vote.boxes if _is_agreed(box, votes)) for vote in votes]
    place = next((place for place, boxes in enumerate(agreed) if boxes), 0)
    vote, boxes = votes[place], agreed[place]
    faults = vote.faults
    if lost := len(vote.boxes) - len(boxes):
        why = f"at most half of {len(votes)} votes point there"
        faults = (*faults, f"{lost} of {len(vote.boxes)} boxes left out: {why}")
    return place, PointingReason(vote.text, boxes, faults)


def add_boxes(samples: Iterable[Sample], reasons: Mapping[str, Prediction]) -> list[Sample]:
    """Return the samples with the boxes of their reasons, by sample id; boxes from the manifest come before these."""
    return [
        s.model_copy(update={"boxes": reasons[s.id].boxes}) if s.id in reasons and not s.boxes else s for s in samples
    ]


def _is_agreed(box: Box, votes: Sequence[PointingReason]) -> bool:
    pointing = sum(any(compute_overlap(box, other) >= SAME for other in vote.boxes) for vote in votes)
    return 2 * pointing > len(votes)
