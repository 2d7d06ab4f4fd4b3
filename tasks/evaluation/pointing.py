"""Compare the boxes in a student's reason with those that a held-out item has."""

from collections.abc import Mapping, Sequence

from tasks.media import Box
from tasks.packs.pack import Pack
from tasks.prompts.boxes import compute_overlap
from tasks.records import Prediction, Sample

_FOUND = 0.5
"""The least overlap (shared by covered area) at which a box counts as found, as is usual."""


def measure_found_boxes(item: Sample, boxes: Sequence[Box]) -> float | None:
    """Return the share of the item's boxes that one of `boxes` finds; None if the item has none.

    Each box of the reason finds one at most.
    """
    if not item.boxes:
        return None
    left = list(boxes)
    found = 0
    for box in item.boxes:
        best = max(left, key=lambda other: compute_overlap(box, other), default=None)
        if best is not None and compute_overlap(box, best) >= _FOUND:
            left.remove(best)
            found += 1
    return found / len(item.boxes)


def measure_pointing(
    pack: Pack, items: Sequence[Sample], reasoned: Mapping[str, Prediction]
) -> dict[str, float | None]:
    """Map the id of each item to the share of its boxes that the student's reason finds; empty without reasons."""
    if not pack.boxes or not reasoned:
        return {}
    return {item.id: measure_found_boxes(item, reasoned[item.id].boxes) for item in items}
