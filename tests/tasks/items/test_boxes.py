"""Boxes in every form that people have, and what is refused of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from tasks.items.samples import Intake, Reason, read_samples
from tasks.media import Box
from tasks.packs.pack import load_pack
from tasks.records import Split
from tests.tasks.intake import SHOWN, item, reasons

DEMO = load_pack("demo")
BUTTON = Box(ref="退款", corners=(10, 12, 30, 27))
"""A box on a.png, whose sides are 40×30."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    picture = Image.linear_gradient("L").convert("RGB").resize((40, 30))
    picture.save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    return folder


def read(images: Path, *items: Any, name: str = "train.json", content: str = "") -> Intake:
    manifest = images.parent / name
    manifest.write_text(content or json.dumps(items, ensure_ascii=False), encoding="utf-8")
    intake = read_samples(manifest, images, DEMO, Split.LABELLED)
    assert len(intake.kept) + len(intake.dropped) == intake.read
    return intake


def swift(**fields: Any) -> dict[str, Any]:
    return {"ref": ["退款"], "bbox": [[10, 12, 30, 27]], "bbox_type": "real", "image_id": [0]} | fields


TOKENS = "<|object_ref_start|>退款<|object_ref_end|><|box_start|>(250,400),(750,900)<|box_end|>"
JSON = [{"bbox_2d": [250, 400, 750, 900], "label": "退款"}]
OWN = [{"ref": "退款", "corners": [10, 12, 30, 27]}]


@pytest.mark.parametrize(
    "boxes",
    [
        OWN,
        json.dumps(OWN),
        [{"bbox": [10, 12, 20, 15], "category": "退款"}],
        {"annotations": [{"bbox": [10, 12, 20, 15], "category_id": 4}], "categories": [{"id": 4, "name": "退款"}]},
        swift(),
        swift(image_id=None, bbox_type=None),
        swift(bbox=[[0.25, 0.4, 0.75, 0.9]], bbox_type="norm1"),
        TOKENS,
        {"form": "qwen2_vl", "boxes": TOKENS},
        {"form": "qwen3_vl", "boxes": JSON},
        {"form": "qwen3_vl", "boxes": f"```json\n{json.dumps(JSON)}\n```"},
        {"form": "qwen2_5_vl", "boxes": [JSON[0] | {"bbox_2d": [14, 56, 42, 126]}], "sizes": [[56, 140]]},
    ],
)
def test_every_form_gives_the_same_box(images: Path, boxes: Any) -> None:
    intake = read(images, item(boxes=boxes))
    assert [s.boxes for s in intake.kept] == [(BUTTON,)], intake.dropped
    assert intake.unread == {}


@pytest.mark.parametrize("boxes", [None, [], "", {}])
def test_an_item_need_not_have_boxes(images: Path, boxes: Any) -> None:
    assert read(images, item(boxes=boxes)).kept[0].boxes == ()


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        (7, Reason.BOX_UNREADABLE),
        ("here", Reason.BOX_UNREADABLE),
        ([[10, 12, 30, 27]], Reason.BOX_UNREADABLE),
        ([{"corners": [10, 12, "30", 27]}], Reason.BOX_UNREADABLE),
        ([{"corners": [10, 12, 30]}], Reason.BOX_UNREADABLE),
        ([{"corners": [10, 12, 30, 10**400]}], Reason.BOX_UNREADABLE),
        ([{"corners": [10, 12, 30, float("nan")]}], Reason.BOX_UNREADABLE),
        ([{"corners": [10, 12, 30, 27], "image": "0"}], Reason.BOX_UNREADABLE),
        ([{"corners": [10, 12, 30, 27], "image": 1}], Reason.BOX_WRONG_IMAGE),
        ([{"corners": [30, 12, 10, 27]}], Reason.BOX_REVERSED),
        ([{"corners": [10, 12, 10, 27]}], Reason.BOX_DEGENERATE),
        ([{"corners": [10, 12, 30, 37]}], Reason.BOX_OUT_OF_RANGE),
        ([{"bbox": [10, 12, 20, 0]}], Reason.BOX_DEGENERATE),
        ([{"bbox": [10, 12, 30, 27]}], Reason.BOX_OUT_OF_RANGE),  # corners in the place of width and height
        ({"annotations": [{"bbox": [1, 2, 3, 4], "image_id": []}]}, Reason.BOX_UNREADABLE),
        ({"annotations": [{"bbox": [1, 2, 3, 4], "image_id": n} for n in (1, 2)]}, Reason.BOX_WRONG_IMAGE),
        (swift(bbox=[[10, 12, 30, 27], [1, 2, 3, 4]]), Reason.BOX_COUNTS_DIFFER),
        (swift(ref=["退款", "取消"]), Reason.BOX_COUNTS_DIFFER),
        (swift(bbox_type="norm1000"), Reason.BOX_FORM_UNKNOWN),  # ms-swift would read it as `real`
        (swift(bbox=[[250, 400, 750, 900]]), Reason.BOX_OUT_OF_RANGE),  # declared `real`, but in thousandths
        (swift(bbox=[[0.25, 0.4, 0.75, 0.9]]), Reason.BOX_FORM_UNKNOWN),  # declared `real`, but fractions
        (swift(bbox=[[10, 12, 30, 27]], bbox_type="norm1"), Reason.BOX_OUT_OF_RANGE),
        (swift(bbox=[[10, 12]]), Reason.BOX_UNREADABLE),
        (swift(image_id=[3]), Reason.BOX_WRONG_IMAGE),
        (TOKENS.replace("900", "1900"), Reason.BOX_OUT_OF_RANGE),
        (TOKENS.removesuffix("<|box_end|>"), Reason.BOX_UNREADABLE),
        (JSON, Reason.BOX_FORM_UNKNOWN),
        ({"form": "qwen", "boxes": JSON}, Reason.BOX_FORM_UNKNOWN),
        ({"form": "qwen2_5_vl", "boxes": JSON}, Reason.BOX_FORM_UNKNOWN),
        ({"form": "qwen2_5_vl", "boxes": JSON, "sizes": 7}, Reason.BOX_FORM_UNKNOWN),
        ({"form": "qwen3_vl", "boxes": JSON, "sizes": [[56, 140]]}, Reason.BOX_FORM_UNKNOWN),
        ({"form": "qwen3_vl", "boxes": [7]}, Reason.BOX_UNREADABLE),
        ({"form": "qwen3_vl"}, Reason.BOX_UNREADABLE),
    ],
)
def test_every_broken_box_has_its_reason(images: Path, boxes: Any, reason: Reason) -> None:
    assert reasons(read(images, item(boxes=boxes))) == [("a", reason)]


def test_with_several_images_a_box_must_say_which(images: Path) -> None:
    two = item(instruction=SHOWN.replace("<image>", "<image><image>"), image=["a.png", "a.png"])
    assert reasons(read(images, two | {"boxes": OWN})) == [("a", Reason.BOX_WRONG_IMAGE)]
    # ms-swift would take the first image's sides
    assert reasons(read(images, two | {"boxes": swift(image_id=None)})) == [("a", Reason.BOX_WRONG_IMAGE)]
    assert read(images, two | {"boxes": swift(image_id=[1])}).kept[0].boxes[0].image == 1
    coco = {"images": [{"id": 8}, {"id": 9}], "annotations": [{"bbox": [1, 2, 3, 4], "image_id": 9}]}
    assert read(images, two | {"boxes": coco}).kept[0].boxes[0].image == 1


def test_a_box_without_an_image_is_refused(images: Path) -> None:
    said = item(instruction="你是一个网店客服助手\n用户: 在吗", image=None, output="询问尺码", boxes=OWN)
    assert reasons(read(images, said)) == [("a", Reason.BOX_WRONG_IMAGE)]


def test_our_boxes_are_on_the_upright_image_and_a_trainers_on_nobody_knows_which(images: Path) -> None:
    turned = item(image=["turned.jpg"])  # 30×40 when upright
    tall = Box(corners=(2, 5, 28, 39))
    assert read(images, turned | {"boxes": [{"corners": tall.corners}]}).kept[0].boxes == (tall,)
    for boxes in (swift(bbox=[[2, 5, 28, 29]]), TOKENS):
        assert reasons(read(images, turned | {"boxes": boxes})) == [("a", Reason.BOX_ON_TURNED_IMAGE)]


def test_boxes_are_read_from_tables(images: Path) -> None:
    table = pd.DataFrame([item(image="a.png", boxes=json.dumps(OWN, ensure_ascii=False))])
    table.to_csv(images.parent / "train.csv", index=False)
    assert read_samples(images.parent / "train.csv", images, DEMO, Split.LABELLED).kept[0].boxes == (BUTTON,)
    table["boxes"] = [swift()]
    table.to_parquet(images.parent / "train.parquet")
    assert read_samples(images.parent / "train.parquet", images, DEMO, Split.LABELLED).kept[0].boxes == (BUTTON,)


def test_a_coco_file_is_a_manifest(images: Path) -> None:
    coco = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 40, "height": 30, "instruction": SHOWN, "output": "商品页"},
            {"id": 2, "file_name": "a.png", "instruction": SHOWN, "output": "支付页"},
        ],
        "annotations": [{"image_id": n, "bbox": [10, 12, 20, 15], "category_id": 4} for n in (1, 3)],
        "categories": [{"id": 4, "name": "退款"}],
    }
    intake = read(images, content=json.dumps(coco))
    assert [(s.id, s.given, s.boxes) for s in intake.kept] == [("1", "商品页", (BUTTON,)), ("2", "支付页", ())]
    assert reasons(intake) == [("3", Reason.MISSING_FIELD)]  # the image of an annotation that the file does not list
