from typing import Any

import pytest

from tasks.evaluation.pointing import measure_found_boxes, measure_pointing
from tasks.evaluation.scores import Scored
from tasks.evaluation.table import describe, make_report
from tasks.media import Box, ImageRef
from tasks.packs.pack import load_pack
from tasks.prompts.box_forms import BoxForm
from tasks.students.settings import StudentSpec
from tests.tasks.making import prediction, sample

BOUNDS = {"min_pixels": 3136, "max_pixels": 56 * 56, "patch_size": 14}
IMAGE = ImageRef(path="/a.png", sha256="a", width=560, height=560)
ITEM = sample("a", IMAGE, boxes=(Box(corners=(0, 0, 280, 280)), Box(corners=(280, 280, 560, 560))))


def points(*corners: tuple[int, int, int, int]) -> str:
    return "看" + "".join(f"<|box_start|>({a},{b}),({c},{d})<|box_end|>" for a, b, c, d in corners)


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        (points((0, 0, 500, 500), (500, 500, 1000, 1000)), 1),
        (points((0, 0, 500, 400)), 0.5),
        (points((0, 0, 500, 500), (0, 0, 490, 490)), 0.5),  # twice the same one
        (points((0, 0, 200, 200)), 0),
        (points((0, 0, 500, 500), (500, 0, 400, 9)), 0.5),  # a box that cannot be used finds nothing
        ("看<|box_start|>(0,0", 0),
        ("", 0),
    ],
)
def test_a_box_is_found_by_one_that_overlaps_it_by_half(reason: str, found: float) -> None:
    assert measure_found_boxes(ITEM, reason, BoxForm.QWEN2, **BOUNDS) == found


def test_only_students_of_a_pack_with_boxes_that_give_reasons_point() -> None:
    student = StudentSpec(base="Qwen/Qwen2-VL-7B-Instruct")
    pack = load_pack("demo").model_copy(update={"boxes": True})
    reasoned = {"a": prediction("a", pointing=points((0, 0, 500, 500))), "b": prediction("b")}
    items = [ITEM, sample("b", IMAGE)]
    assert measure_pointing(student, pack, items, reasoned) == {"a": 0.5, "b": None}
    assert (
        measure_pointing(student, pack, items, {})
        == measure_pointing(student, load_pack("demo"), items, reasoned)
        == {}
    )


def test_pixels_are_those_of_the_resized_image() -> None:
    reason = '[{"bbox_2d": [0, 0, 28, 28], "label": ""}, {"bbox_2d": [28, 28, 56, 56], "label": ""}]'
    assert measure_found_boxes(ITEM, reason, BoxForm.QWEN2_5, **BOUNDS) == 1
    assert measure_found_boxes(sample("b", IMAGE), reason, BoxForm.QWEN2_5, **BOUNDS) is None


def test_the_report_has_found_boxes_only_where_there_are_boxes() -> None:
    def row(id: str, **fields: Any) -> Scored:
        return Scored(sample_id=id, variant="raw", seed=0, truth="x", label="x", **fields)

    report = make_report([row("a", boxes_found=0.5), row("b", boxes_found=1), row("c")])
    assert "boxes found" in describe(report) and "| 75.0% |" in describe(report)
    assert report.figures()["boxes found by raw"] == 0.75
    assert "boxes found" not in describe(make_report([row("a")]))
