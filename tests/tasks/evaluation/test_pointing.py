from typing import Any

import pytest

from tasks.evaluation.pointing import measure_found_boxes, measure_pointing
from tasks.evaluation.scores import Scored
from tasks.evaluation.table import describe, make_report
from tasks.media import Box, ImageRef
from tasks.packs.pack import load_pack
from tests.tasks.making import prediction, sample

IMAGE = ImageRef(path="/a.png", sha256="a", width=560, height=560)
ITEM = sample("a", IMAGE, boxes=(Box(corners=(0, 0, 280, 280)), Box(corners=(280, 280, 560, 560))))


def points(*corners: tuple[float, float, float, float]) -> tuple[Box, ...]:
    return tuple(Box(corners=c) for c in corners)


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        (points((0, 0, 280, 280), (280, 280, 560, 560)), 1),
        (points((0, 0, 280, 224)), 0.5),
        (points((0, 0, 280, 280), (0, 0, 270, 270)), 0.5),  # twice the same one
        (points((0, 0, 110, 110)), 0),
        ((), 0),
    ],
)
def test_a_box_is_found_by_one_that_overlaps_it_by_half(boxes: tuple[Box, ...], found: float) -> None:
    assert measure_found_boxes(ITEM, boxes) == found


def test_only_students_of_a_pack_with_boxes_that_give_reasons_point() -> None:
    pack = load_pack("demo").model_copy(update={"boxes": True})
    reasoned = {"a": prediction("a", boxes=points((0, 0, 280, 280))), "b": prediction("b")}
    items = [ITEM, sample("b", IMAGE)]
    assert measure_pointing(pack, items, reasoned) == {"a": 0.5, "b": None}
    assert measure_pointing(pack, items, {}) == measure_pointing(load_pack("demo"), items, reasoned) == {}


def test_the_report_has_found_boxes_only_where_there_are_boxes() -> None:
    def row(id: str, **fields: Any) -> Scored:
        return Scored(sample_id=id, variant="raw", seed=0, truth="x", label="x", **fields)

    report = make_report([row("a", boxes_found=0.5), row("b", boxes_found=1), row("c")])
    assert "boxes found" in describe(report) and "| 75.0% |" in describe(report)
    assert report.figures()["boxes found by raw"] == 0.75
    assert "boxes found" not in describe(make_report([row("a")]))
