"""Write and read boxes as each generation of Qwen-VL does.

- Qwen2-VL: `<|object_ref_start|>text<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>`, in thousandths
- Qwen2.5-VL: JSON `[{"bbox_2d": [x1, y1, x2, y2], "label": "text"}]`, in pixels of the resized image
- Qwen3-VL: the same JSON, in thousandths

None of these says which of several images is meant. So for items with several, we write `Picture 2: ` before a box, or
the key `"image": 2` into the JSON, both counted from 1 as prompts do.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from tasks.media import Box, BoxForm, ImageRef
from tasks.prompts.boxes import THOUSANDTHS, BadBox, BoxFault, Grid, RawBox, scale_box
from tasks.prompts.turns import BOX_EXAMPLE, BOX_TOKEN, escape_placeholder

BOX_TOKENS = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
"""Special tokens of Qwen2-VL's form. They are part of the text of an answer."""
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_TOKENS = re.compile(
    r"(?:Picture (?P<picture>\d+): )?(?:<\|object_ref_start\|>(?P<ref>.*?)<\|object_ref_end\|>\s*)?"
    rf"<\|box_start\|>\({_NUMBER},{_NUMBER}\),\s*\({_NUMBER},{_NUMBER}\)<\|box_end\|>",
    re.DOTALL,
)
_OBJECT = re.compile(r'\{[^{}]*"bbox_2d"[^{}]*\}')
_LIST = re.compile(r"(?:```(?:json)?\s*)?\[\s*\ue000[\s,\ue000]*\](?:\s*```)?|\ue000")
"""A list whose objects were replaced by a private-use character, or such an object alone."""
_BEGINNINGS = re.compile(r"<\|box_start\|>|<\|box_end\|>|<\|object_ref_start\|>|<\|object_ref_end\|>|bbox_2d")


def find_box_form(model_type: str) -> BoxForm:
    """Return the form of the generation that config.json calls `model_type`."""
    return BoxForm(model_type.removesuffix("_moe"))


# --- writing --------------------------------------------------------------------------------------------------


def show_box_form(form: BoxForm, images: int) -> str:
    """Return what a model is shown as an example of a box; "" for an item without images, where it cannot point."""
    if not images:
        return ""
    if form is BoxForm.QWEN2:
        return ("Picture 1: " if images > 1 else "") + BOX_EXAMPLE
    picture = ', "image": 1' if images > 1 else ""
    return f'[{{"bbox_2d": [x1, y1, x2, y2], "label": "…"{picture}}}]'


def fill_in_boxes(
    text: str, boxes: Sequence[Box], images: Sequence[ImageRef], form: BoxForm, grids: Sequence[Grid] | None = None
) -> str:
    """Replace each run of `<bbox>` in an answer by the next boxes, escaped for a JSON string.

    `grids` are the sides at which the reader sees `images`; None stands for thousandths, which are right whatever the
    reader does to the images. There must be as many `<bbox>` as boxes.
    """
    written = [scale_box(box, images[box.image], grids[box.image] if grids else THOUSANDTHS) for box in boxes]
    numbers = [json.dumps(corners) for corners in written]
    return _replace_runs(text, boxes, len(images), form, numbers, tokens=[_write_points(c) for c in written])


def name_boxes(text: str, boxes: Sequence[Box], images: int, form: BoxForm) -> str:
    """Write what `fill_in_boxes` writes around coordinates, and leave `<bbox>` for these, as ms-swift fills it in."""
    kept = [BOX_TOKEN] * len(boxes)
    return _replace_runs(text, boxes, images, form, kept, tokens=kept)


def _write_points(corners: tuple[int, int, int, int]) -> str:
    left, top, right, bottom = corners
    return f"<|box_start|>({left},{top}),({right},{bottom})<|box_end|>"


def _replace_runs(
    text: str, boxes: Sequence[Box], images: int, form: BoxForm, numbers: Sequence[str], tokens: Sequence[str]
) -> str:
    upcoming = iter(range(len(boxes)))

    def write(run: re.Match[str]) -> str:
        chosen = [next(upcoming) for _ in range(run[0].count(BOX_TOKEN))]
        if form is BoxForm.QWEN2:
            return "".join(_write_tokens(boxes[i], images, tokens[i]) for i in chosen)
        listed = ", ".join(_write_object(boxes[i], images, numbers[i]) for i in chosen)
        return json.dumps(f"[{listed}]", ensure_ascii=False)[1:-1]

    return re.sub(f"(?:{BOX_TOKEN})+", write, text)


def _write_tokens(box: Box, images: int, points: str) -> str:
    picture = f"Picture {box.image + 1}: " if images > 1 else ""
    ref = json.dumps(escape_placeholder(box.ref), ensure_ascii=False)[1:-1]
    return picture + (f"<|object_ref_start|>{ref}<|object_ref_end|>" if ref else "") + points


def _write_object(box: Box, images: int, numbers: str) -> str:
    label = json.dumps(escape_placeholder(box.ref), ensure_ascii=False)
    picture = f', "image": {box.image + 1}' if images > 1 else ""
    return f'{{"bbox_2d": {numbers}, "label": {label}{picture}}}'


# --- reading --------------------------------------------------------------------------------------------------


def find_boxes(text: str, form: BoxForm, grids: Sequence[Grid] | None = None) -> tuple[str, list[RawBox]]:
    """Return the text without its boxes, and the boxes.

    `grids` are the sides at which the model saw the images; None stands for thousandths. Raises BadBox if a box is
    begun but not complete.
    """
    found: list[RawBox] = []

    def take_tokens(match: re.Match[str]) -> str:
        picture = match["picture"]
        numbers = tuple(map(float, match.groups()[2:]))
        found.append(_place(match["ref"] or "", numbers, int(picture) - 1 if picture else None, grids))
        return ""

    def take_object(match: re.Match[str]) -> str:
        try:
            value: object = json.loads(match[0])
        except ValueError:
            return match[0]
        found.append(read_object_box(value, grids))
        return "\ue000"

    rest = _TOKENS.sub(take_tokens, text) if form is BoxForm.QWEN2 else _LIST.sub("", _OBJECT.sub(take_object, text))
    if broken := _BEGINNINGS.search(rest):
        raise BadBox(BoxFault.UNREADABLE, f"`{broken[0]}` is not part of a complete box: {rest[broken.start() :][:80]}")
    return " ".join(rest.split()), found


def remove_boxes(text: str) -> str:
    """Return a text without its boxes of whatever form."""
    return " ".join(_LIST.sub("", _OBJECT.sub("\ue000", _TOKENS.sub("", text))).split())


def read_object_box(value: object, grids: Sequence[Grid] | None) -> RawBox:
    """Return the box in one JSON object with `bbox_2d`; raises BadBox if it has none."""
    entry = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}
    numbers = read_numbers(entry.get("bbox_2d"))
    picture = entry.get("image")
    ref = entry.get("label") or ""
    if numbers is None or not isinstance(ref, str) or not isinstance(picture, int | None):
        raise BadBox(BoxFault.UNREADABLE, f"{str(value)[:80]} has not `bbox_2d`, four numbers, and `label`, a text")
    return _place(ref, numbers, None if picture is None else picture - 1, grids)


def read_numbers(value: object) -> tuple[float, ...] | None:
    """Return a list of numbers as a tuple; None for anything else."""
    if not isinstance(value, list | tuple):
        return None
    numbers = [n for n in cast(Sequence[object], value) if isinstance(n, int | float) and not isinstance(n, bool)]
    if len(numbers) < len(cast(Sequence[object], value)):
        return None
    try:
        return tuple(map(float, numbers))
    except OverflowError:
        return None


def _place(ref: str, numbers: tuple[float, ...], image: int | None, grids: Sequence[Grid] | None) -> RawBox:
    grid = THOUSANDTHS
    if grids is not None:
        # a box on an image that is not there is refused when it is checked
        grid = grids[image or 0] if 0 <= (image or 0) < len(grids) else None
    return RawBox(ref, numbers, image, grid)
