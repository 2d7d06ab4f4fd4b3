import json

import pytest

from tasks.media import Box, ImageRef
from tasks.prompts.box_forms import BoxForm, fill_in_boxes, find_box_form, find_boxes
from tasks.prompts.boxes import BadBox, check_box, compute_overlap

PHONE = ImageRef(path="/phone.png", sha256="a", width=1080, height=2340)
BUTTON = Box(ref="退款", corners=(540, 2106, 810, 2223))
SEEN = [(504.0, 560.0)]


def write(*boxes: Box, form: BoxForm, images: int = 1, grids: list[tuple[float, float]] | None = None) -> str:
    """Return the reason of an answer with these boxes, as JSON gives it back."""
    answer = '{"reason": "看这里' + "<bbox>" * len(boxes) + '", "label": "x"}'
    return json.loads(fill_in_boxes(answer, boxes, [PHONE] * images, form, grids))["reason"]


@pytest.mark.parametrize(
    ("form", "grids", "text"),
    [
        (
            BoxForm.QWEN2,
            None,
            "看这里<|object_ref_start|>退款<|object_ref_end|><|box_start|>(500,900),(750,950)<|box_end|>",
        ),
        (BoxForm.QWEN2_5, SEEN, '看这里[{"bbox_2d": [252, 504, 378, 532], "label": "退款"}]'),
        (BoxForm.QWEN3, None, '看这里[{"bbox_2d": [500, 900, 750, 950], "label": "退款"}]'),
    ],
)
def test_each_generation_writes_its_own_form_and_reads_it(
    form: BoxForm, grids: list[tuple[float, float]] | None, text: str
) -> None:
    assert write(BUTTON, form=form, grids=grids) == text
    rest, found = find_boxes(text, form, grids)
    assert (rest, [check_box(raw, [PHONE]) for raw in found]) == ("看这里", [BUTTON])


@pytest.mark.parametrize("form", BoxForm)
def test_boxes_on_several_images_come_back_on_theirs(form: BoxForm) -> None:
    boxes = [BUTTON, Box(image=1, ref='A "b"\n', corners=(0, 0, 270, 585))]
    rest, found = find_boxes(write(*boxes, form=form, images=2), form)
    back = [check_box(raw, [PHONE, PHONE]) for raw in found]
    assert rest == "看这里"
    assert [(b.image, b.ref) for b in back] == [(b.image, b.ref) for b in boxes]
    assert all(compute_overlap(a, b) > 0.99 for a, b in zip(back, boxes, strict=True))


def test_special_tokens_in_what_a_box_shows_stay_text() -> None:
    text = write(BUTTON.model_copy(update={"ref": "<|box_end|><|im_end|>"}), form=BoxForm.QWEN2)
    assert text.count("<|box_end|>") == 1 and "<|im_end|>" not in text


def test_json_in_a_code_fence_or_without_a_list_is_read() -> None:
    one = '{"bbox_2d": [1, 2, 3, 4], "label": "x"}'
    for text in (f"看\n```json\n[\n{one},\n{one}\n]\n```", f"看{one} {one}"):
        rest, found = find_boxes(text, BoxForm.QWEN3)
        assert (rest, len(found)) == ("看", 2)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (BoxForm.QWEN2, "<|box_start|>(1,2),(3"),
        (BoxForm.QWEN2, "<|box_start|>(1,2)<|box_end|>"),
        (BoxForm.QWEN2, "<|object_ref_start|>退款<|object_ref_end|>"),
        (BoxForm.QWEN3, '[{"bbox_2d": [1, 2'),
        (BoxForm.QWEN3, '[{"bbox_2d": "1,2,3,4"}]'),
        (BoxForm.QWEN3, '[{"bbox_2d": [1, 2, 3, 4], "label": 7}]'),
    ],
)
def test_a_box_that_is_begun_and_not_complete_is_noticed(form: BoxForm, text: str) -> None:
    with pytest.raises(BadBox):
        find_boxes(text, form)


def test_generations_are_found_by_their_model_type() -> None:
    assert find_box_form("qwen3_vl_moe") is BoxForm.QWEN3
    assert find_box_form("qwen2_5_vl").in_pixels and not find_box_form("qwen2_vl").in_pixels
