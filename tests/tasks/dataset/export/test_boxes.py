"""Boxes in the rows of every reader: on the drawn button after the reader's own resizing, and none lost silently."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.dataset.decisions import Decision, LeftOutReason, decide_labelled, make_example
from tasks.dataset.export.conversation import UnsupportedExample
from tasks.dataset.export.exports import write_exports
from tasks.dataset.settings import ExportSpec, Format
from tasks.media import Box, ImageRef
from tasks.packs.pack import load_pack
from tasks.prompts.box_forms import BoxForm, find_boxes
from tasks.prompts.boxes import RawBox, check_box, compute_overlap
from tasks.prompts.prompter import Prompter
from tasks.records import Example, Origin
from tests.tasks.dataset.export.making import SPEC, make_conversation, make_swift_row
from tests.tasks.making import correction, prediction, prompter, sample

PHONE = ImageRef(path="/phone.png", sha256="a", width=1080, height=2340)
BUTTON = Box(ref='退款"<|box_end|><bbox>', corners=(541, 2103, 809, 2221))
SMALL = Box(image=1, ref="取消", corners=(20, 30, 84, 62))
BASES = {
    "Qwen/Qwen2-VL-7B-Instruct": BoxForm.QWEN2,
    "Qwen/Qwen2.5-VL-7B-Instruct": BoxForm.QWEN2_5,
    "Qwen/Qwen3-VL-8B-Instruct": BoxForm.QWEN3,
}
pointing = Prompter(
    load_pack("demo").model_copy(update={"boxes": True}), "m", max_pixels=112 * 168, min_pixels=56 * 56, texts={}
)


def grounded(*boxes: Box, images: int = 2, reason: str = "看到<bbox>和<|box_start|>字样") -> Example:
    subject = sample("a", "用户: <bbox>", *[PHONE] * images, boxes=boxes)
    return make_example(subject, Decision("申请退款", Origin.GIVEN, "w", reason), pointing)


def read_reason(answer: str, form: BoxForm) -> tuple[str, list[Box]]:
    """Return the reason of an answer, without its boxes, and these."""
    rest, found = find_boxes(json.loads(answer)["理由"], form)
    return rest, [check_box(raw, [PHONE, PHONE]) for raw in found]


@pytest.mark.parametrize("base", BASES)
def test_boxes_of_plain_text_are_in_thousandths_and_survive_any_resizing(base: str) -> None:
    """LLaMA-Factory shrinks images to 768² and snaps their sides; TRL and Qwen's script have bounds of their own."""
    conversation = make_conversation(grounded(BUTTON, SMALL), spec=ExportSpec(base=base))
    ((_, answer),) = conversation.turns
    reason, boxes = read_reason(answer, BASES[base])
    assert reason == "看到＜bbox＞和＜|box_start|＞字样"
    assert [box.image for box in boxes] == [0, 1]
    assert all(compute_overlap(a, b) > 0.9 for a, b in zip(boxes, [BUTTON, SMALL], strict=True))
    # our special tokens stay tokens, those in data become text
    assert answer.count("<|box_end|>") == (2 if base == "Qwen/Qwen2-VL-7B-Instruct" else 0)
    assert "<bbox>" not in answer + conversation.turns[0][0]


@pytest.mark.parametrize("base", BASES)
def test_ms_swift_gets_one_box_with_type_and_image_for_each_tag(base: str) -> None:
    row: dict[str, Any] = make_swift_row(grounded(BUTTON, SMALL), ["/0.png", "/1.png"], spec=ExportSpec(base=base))
    answer, objects = row["messages"][-1]["content"], row["objects"]
    assert str(row["messages"]).count("<bbox>") == answer.count("<bbox>") == len(objects["bbox"]) == 2
    assert (objects["bbox_type"], objects["image_id"]) == ("real", [0, 1])
    assert [list(box) for box in objects["bbox"]] == [list(BUTTON.corners), list(SMALL.corners)]
    # as ms-swift fills in the tags, in thousandths as for Qwen2-VL and Qwen3-VL
    for left, top, right, bottom in objects["bbox"]:
        x, y = (left * 1000 // 1080, right * 1000 // 1080), (top * 1000 // 2340, bottom * 1000 // 2340)
        points = f"<|box_start|>({x[0]},{y[0]}),({x[1]},{y[1]})<|box_end|>"
        filled = points if BASES[base] is BoxForm.QWEN2 else str([x[0], y[0], x[1], y[1]])
        answer = answer.replace("<bbox>", filled, 1)
    reason, boxes = read_reason(answer, BASES[base])
    assert (reason, [box.image for box in boxes]) == ("看到＜bbox＞和＜|box_start|＞字样", [0, 1])


def test_a_literal_tag_does_not_take_a_box_and_needs_none() -> None:
    row: dict[str, Any] = make_swift_row(grounded(images=1), ["/0.png"])
    assert "objects" not in row and "<bbox>" not in str(row["messages"])


def test_an_answer_with_too_few_or_too_many_boxes_is_left_out() -> None:
    whole = grounded(BUTTON, SMALL)
    for boxes in ((BUTTON,), (BUTTON, SMALL, SMALL)):
        with pytest.raises(UnsupportedExample, match="2 `<bbox>`") as caught:
            make_swift_row(whole.model_copy(update={"boxes": boxes}), ["/0.png", "/1.png"])
        assert caught.value.reason is LeftOutReason.BOXES_DO_NOT_MATCH


def test_boxes_of_another_label_are_not_trained() -> None:
    subject = sample("a", PHONE, boxes=(BUTTON,))
    assert make_example(subject, Decision("查询物流", Origin.REVIEW, "w"), pointing).boxes == ()
    assert make_example(subject, Decision("申请退款", Origin.GIVEN, "w"), pointing).boxes == (BUTTON,)


def test_every_reader_finds_the_button_on_a_photo_that_was_rotated(tmp_path: Path) -> None:
    """Trainers ignore the rotation in EXIF, so they get the upright picture and boxes on that."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("RGB", (400, 300), "white")
    lying.paste("red", (40, 100, 120, 280))
    lying.save(tmp_path / "photo.png", exif=exif)
    image = ImageRef(path=str(tmp_path / "photo.png"), sha256="p", width=300, height=400)
    red = Box(ref="红", corners=(20, 40, 200, 120))
    subject = sample("a", image, boxes=(red,))
    example = make_example(subject, Decision("申请退款", Origin.GIVEN, "w", "红"), pointing)
    formats = (Format.LLAMAFACTORY, Format.SWIFT, Format.QWEN, Format.TRL, Format.SWIFT2, Format.VISION_START)
    assert not write_exports(tmp_path / "out", "set", [example], SPEC.model_copy(update={"formats": formats})).left_out

    def check(answer: str, picture: Image.Image) -> None:
        ref = image.model_copy(update={"width": picture.width, "height": picture.height})
        (found,) = find_boxes(json.loads(answer)["理由"], BoxForm.QWEN2)[1]
        land(check_box(found, [ref]), picture)

    def land(box: Box, picture: Image.Image) -> None:
        drawn = picture.convert("RGB").split()[1].point(lambda green: 255 * (green < 128)).getbbox()
        assert drawn is not None and compute_overlap(box, Box(corners=drawn)) > 0.9

    out = tmp_path / "out"
    (row,) = json.loads((out / "llamafactory/set.json").read_text())
    picture = Image.open(row["images"][0])
    check(row["messages"][-1]["content"], picture)
    check(row["messages"][-1]["content"], picture.resize((560, 756)))  # as the reader shrinks and snaps it
    (row,) = json.loads((out / "qwen/set.json").read_text())
    check(row["conversations"][-1]["value"], Image.open(row["image"]))
    (row,) = json.loads((out / "vision_start/set.json").read_text())
    check(row["conversations"][-1]["value"], picture)
    check(json.loads((out / "swift2/set.jsonl").read_text())["conversations"][-1]["value"], picture)
    row = json.loads((out / "swift/set.jsonl").read_text())
    land(check_box(RawBox("", tuple(row["objects"]["bbox"][0])), [image]), Image.open(row["images"][0]))
    row = pq.read_table(out / "trl/set.parquet").to_pylist()[0]
    check(row["completion"][0]["content"][0]["text"], picture)


def test_the_ready_configuration_sets_the_form_that_ms_swift_writes(tmp_path: Path) -> None:
    for base, form in BASES.items():
        write_exports(tmp_path, "set", [grounded(BUTTON)], ExportSpec(base=base, formats=(Format.SWIFT,)))
        written = (tmp_path / "swift/train_lora.yaml").read_text()
        assert ("QWENVL_BBOX_FORMAT: new" in written) is (form is not BoxForm.QWEN2)


def test_boxes_of_a_reason_are_taught_unless_the_item_has_its_own() -> None:
    shown = Box(ref="红", corners=(1.0, 2.0, 30.0, 40.0))
    subject, rationale = sample("a", "用户: 看", PHONE), prediction("a", reason="有“红”字", boxes=(shown,))
    taught = make_example(subject, decide_labelled(subject, None, rationale), pointing)
    assert taught.boxes == (shown,) and taught.messages[-1].content.count("<bbox>") == 1
    drawn = subject.model_copy(update={"boxes": (BUTTON,)})
    assert make_example(drawn, decide_labelled(drawn, None, rationale), pointing).boxes == (BUTTON,)
    changed = correction("a", label="查询物流", adjudicated="查询物流", reason="问物流", boxes=(shown,))
    assert make_example(drawn, decide_labelled(drawn, changed, rationale), pointing).boxes == (shown,)
    without = decide_labelled(subject, None, rationale)._replace(reason="")
    assert make_example(subject, without, pointing).boxes == ()
    assert make_example(subject, decide_labelled(subject, None, rationale), prompter()).boxes == ()
