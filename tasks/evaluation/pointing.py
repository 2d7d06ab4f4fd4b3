"""Compare the boxes in a student's reason with those that a held-out item has."""

from collections.abc import Mapping, Sequence

from tasks.media import Box
from tasks.models.image_cache import TooThin, compute_grids
from tasks.models.qwen_vl import read_qwen_vl
from tasks.packs.pack import Pack
from tasks.prompts.box_forms import BoxForm, find_boxes
from tasks.prompts.boxes import BadBox, check_box, compute_overlap
from tasks.records import Prediction, Sample
from tasks.students.asking import choose_box_form
from tasks.students.settings import StudentSpec

_FOUND = 0.5
"""The least overlap (shared by covered area) at which a box counts as found, as is usual."""


def measure_found_boxes(item: Sample, reason: str, form: BoxForm, **bounds: int) -> float | None:
    """Return the share of the item's boxes that a box in `reason` finds; None if the item has none.

    Each box of the reason finds one at most. Boxes that cannot be read find nothing. `bounds` are those of
    `compute_grids`, with which the student was asked.
    """
    if not item.boxes:
        return None
    left = _read_boxes(item, reason, form, bounds)
    found = 0
    for box in item.boxes:
        best = max(left, key=lambda other: compute_overlap(box, other), default=None)
        if best is not None and compute_overlap(box, best) >= _FOUND:
            left.remove(best)
            found += 1
    return found / len(item.boxes)


def measure_pointing(
    student: StudentSpec, pack: Pack, items: Sequence[Sample], reasoned: Mapping[str, Prediction]
) -> dict[str, float | None]:
    """Map the id of each item to the share of its boxes that the student's reason finds; empty without reasons."""
    form = choose_box_form(student, pack)
    if form is None or not reasoned:
        return {}
    patch_size = read_qwen_vl(student.base, student.revision).patch_size
    bounds = {"min_pixels": student.min_pixels, "max_pixels": student.max_pixels, "patch_size": patch_size}
    return {item.id: measure_found_boxes(item, reasoned[item.id].pointing, form, **bounds) for item in items}


def _read_boxes(item: Sample, reason: str, form: BoxForm, bounds: dict[str, int]) -> list[Box]:
    try:
        raws = find_boxes(reason, form, compute_grids(item.images, form, **bounds))[1]
    except (BadBox, TooThin):
        return []
    boxes: list[Box] = []
    for raw in raws:
        try:
            boxes.append(check_box(raw, item.images))
        except BadBox:
            continue
    return boxes
