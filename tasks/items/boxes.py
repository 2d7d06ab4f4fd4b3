"""Read the boxes of an item from the forms in which people have them.

Besides our own form, `[{"ref": "…", "corners": [left, top, right, bottom], "image": 0}]` in pixels of the upright
image, these are:

- COCO annotations: `[{"bbox": [left, top, width, height], "category": "…"}]`, or a part of a COCO file with
  `annotations`, `categories` and, for an item with several images, `images` in the item's order
- ms-swift's `objects`: `{"ref": […], "bbox": [[…]], "bbox_type": "real" or "norm1", "image_id": […]}`
- answers of Qwen2-VL, recognised by their special tokens
- answers of Qwen2.5-VL and Qwen3-VL, whose JSON is the same and means different things. So it must be said which it is:
  `{"form": "qwen3_vl", "boxes": …}`, or `{"form": "qwen2_5_vl", "sizes": [[width, height]], "boxes": …}` with the sides
  of each image as that model saw it.

Trainers ignore the rotation that a photo notes in EXIF, so their boxes (all but ours and COCO's) can't be placed on an
image that has one: nobody knows whether they were drawn on the rotated image or on the other.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from PIL import Image

from tasks.items.images import FORMATS
from tasks.items.pixels import is_turned
from tasks.items.raw_items import is_empty
from tasks.items.refusals import Reason, Unusable
from tasks.media import Box, ImageRef
from tasks.prompts.box_forms import BoxForm, find_boxes, read_numbers, read_object_box
from tasks.prompts.boxes import BadBox, Grid, RawBox, check_box

_MOST_SHOWN = 80
_FRACTIONS: Grid = (1, 1)
_IDS = ("id", "image_id", "category_id")


class ItemBoxes(NamedTuple):
    """The boxes of an item before its images are known."""

    boxes: tuple[RawBox, ...] = ()
    from_trainer: bool = False
    """Whether they are in the form of a trainer, which ignores the rotation in EXIF."""


def read_boxes(value: object) -> ItemBoxes:
    """Return the boxes in an item's field; raises Unusable if they are in no known form."""
    if is_empty(value):
        return ItemBoxes()
    if isinstance(value, str):
        return _read_text(value)
    if isinstance(value, list):
        return ItemBoxes(tuple(map(_read_entry, cast(list[object], value))))
    if isinstance(value, Mapping):
        fields = {k: v for k, v in cast(Mapping[str, Any], value).items() if v is not None}
        if "annotations" in fields:
            return ItemBoxes(_read_coco(fields))
        if "form" in fields:
            return ItemBoxes(_read_answer(fields), from_trainer=True)
        if "bbox" in fields and isinstance(fields["bbox"], list):
            return ItemBoxes(_read_objects(fields), from_trainer=True)
    _refuse(value)


def place_boxes(found: ItemBoxes, images: Sequence[ImageRef]) -> tuple[Box, ...]:
    """Return the boxes in pixels of the item's upright images; raises Unusable if one cannot be placed."""
    try:
        boxes = tuple(check_box(raw, images) for raw in found.boxes)
    except BadBox as bad:
        raise Unusable(Reason(bad.fault), bad.detail) from bad
    for number in sorted({box.image for box in boxes}) if found.from_trainer else ():
        with Image.open(images[number].path, formats=FORMATS) as image:
            turned = is_turned(image)
        if turned:
            detail = "is rotated by EXIF, which trainers ignore, so nobody knows which way up its boxes are"
            name = Path(images[number].path).name
            raise Unusable(Reason.BOX_ON_TURNED_IMAGE, f"image {name} {detail}; store the image upright")
    return boxes


def _refuse(value: object) -> NoReturn:
    forms = "corners [left, top, right, bottom], COCO's `bbox`, ms-swift's `objects`, or an answer of Qwen-VL"
    raise Unusable(Reason.BOX_UNREADABLE, f"`{str(value)[:_MOST_SHOWN]}` is no box in a known form: {forms}")


def _read_text(text: str) -> ItemBoxes:
    """Read JSON that was written into one cell, or an answer of Qwen2-VL."""
    if "<|box_start|>" in text:
        return ItemBoxes(_find_in_answer(text, BoxForm.QWEN2, None), from_trainer=True)
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        _refuse(text)
    return _refuse(text) if isinstance(value, str) else read_boxes(value)


def _read_entry(value: object) -> RawBox:
    """Read one box of a list: ours or COCO's."""
    entry = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}
    if entry.get("bbox_2d") is not None:
        detail = "`bbox_2d` means pixels in Qwen2.5-VL and thousandths in Qwen3-VL"
        raise Unusable(Reason.BOX_FORM_UNKNOWN, f'{detail}; write {{"form": "qwen3_vl", "boxes": […]}} to say which')
    if entry.get("bbox") is not None:
        return _read_annotation(entry, entry.get("image"))
    ref = entry.get("ref") or ""
    numbers, image = read_numbers(entry.get("corners")), entry.get("image")
    if numbers is None or not isinstance(ref, str) or not _is_number(image):
        _refuse(value)
    return RawBox(ref, numbers, image)


def _is_number(image: object) -> bool:
    return image is None or (isinstance(image, int) and not isinstance(image, bool))


# --- COCO -----------------------------------------------------------------------------------------------------


def _read_annotation(entry: Mapping[str, Any], image: int | None, names: Mapping[object, str] = {}) -> RawBox:
    numbers = read_numbers(entry.get("bbox"))
    ref = entry.get("category") or entry.get("category_name") or names.get(entry.get("category_id"), "")
    if numbers is None or len(numbers) != 4 or not isinstance(ref, str) or not _is_number(image):
        _refuse(entry)
    left, top, width, height = numbers
    return RawBox(ref, (left, top, left + width, top + height), image)


def _read_coco(fields: Mapping[str, Any]) -> tuple[RawBox, ...]:
    annotations, categories, images = (_list_objects(fields, key) for key in ("annotations", "categories", "images"))
    names: dict[object, str] = {category.get("id"): str(category.get("name", "")) for category in categories}
    places = {image.get("id"): place for place, image in enumerate(images)}
    ids = {annotation.get("image_id") for annotation in annotations}
    if (unknown := ids - set(places)) and (places or len(ids) > 1):
        missing = sorted(map(str, unknown))
        raise Unusable(Reason.BOX_WRONG_IMAGE, f"has annotations of images {missing}, which its `images` does not list")
    return tuple(_read_annotation(a, places.get(a.get("image_id")), names) for a in annotations)


def _list_objects(fields: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries: object = fields.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in cast(list[object], entries)):
        _refuse({key: entries})
    listed = cast(list[Mapping[str, Any]], entries)
    if not all(isinstance(e.get(name), str | int | None) for e in listed for name in _IDS):
        _refuse({key: entries})
    return listed


# --- trainers -------------------------------------------------------------------------------------------------


def _read_objects(fields: Mapping[str, Any]) -> tuple[RawBox, ...]:
    """Read ms-swift's `objects`, without what it does silently to those that are incomplete or wrong."""
    kind = fields.get("bbox_type", "real")
    if kind not in ("real", "norm1"):
        raise Unusable(Reason.BOX_FORM_UNKNOWN, f"`bbox_type` is {kind!r}; ms-swift knows `real` and `norm1`")
    boxes = list(map(read_numbers, cast(list[object], fields["bbox"])))
    refs, images = fields.get("ref") or [""] * len(boxes), fields.get("image_id") or [None] * len(boxes)
    if not isinstance(refs, list) or not isinstance(images, list):
        _refuse(fields)
    counts = {"bbox": len(boxes), "ref": len(cast(list[object], refs)), "image_id": len(cast(list[object], images))}
    if len(set(counts.values())) > 1:
        raise Unusable(Reason.BOX_COUNTS_DIFFER, f"{counts}: each box needs one `ref` and one `image_id`, or none does")
    numbers = [box for box in boxes if box is not None]
    if len(numbers) < len(boxes) or not all(isinstance(r, str) for r in refs) or not all(map(_is_number, images)):
        _refuse(fields)
    if kind == "real" and numbers and all(0 <= n <= 1 for box in numbers for n in box):
        detail = "`bbox_type` is `real`, but all coordinates are between 0 and 1, which is `norm1`"
        raise Unusable(Reason.BOX_FORM_UNKNOWN, f"{detail}; correct the type")
    grid = _FRACTIONS if kind == "norm1" else None
    return tuple(RawBox(*parts, grid) for parts in zip(refs, numbers, images, strict=True))


def _read_answer(fields: Mapping[str, Any]) -> tuple[RawBox, ...]:
    try:
        form = BoxForm(fields["form"])
    except ValueError:
        known = ", ".join(BoxForm)
        detail = f"`form` is {str(fields['form'])[:_MOST_SHOWN]!r}; known forms are {known}"
        raise Unusable(Reason.BOX_FORM_UNKNOWN, detail) from None
    listed: object = fields.get("sizes")
    sizes = [read_numbers(size) for size in cast(list[object], listed)] if isinstance(listed, list) else []
    grids = [(size[0], size[1]) for size in sizes if size is not None and len(size) == 2 and min(size) > 0]
    if form.in_pixels and (not grids or len(grids) < len(sizes)):
        detail = f"boxes of {form} are pixels of the resized image: give `sizes`, [width, height] of each image"
        raise Unusable(Reason.BOX_FORM_UNKNOWN, detail)
    if sizes and not form.in_pixels:
        raise Unusable(Reason.BOX_FORM_UNKNOWN, f"boxes of {form} are in thousandths and need no `sizes`; remove them")
    boxes: object = fields.get("boxes")
    if isinstance(boxes, str):
        return _find_in_answer(boxes, form, grids or None)
    if not isinstance(boxes, list) or form is BoxForm.QWEN2:
        _refuse(fields)
    try:
        return tuple(read_object_box(box, grids or None) for box in cast(list[object], boxes))
    except BadBox as bad:
        raise Unusable(Reason(bad.fault), bad.detail) from bad


def _find_in_answer(text: str, form: BoxForm, grids: Sequence[Grid] | None) -> tuple[RawBox, ...]:
    try:
        found = find_boxes(text, form, grids)[1]
    except BadBox as bad:
        raise Unusable(Reason(bad.fault), bad.detail) from bad
    return tuple(found) or _refuse(text)
