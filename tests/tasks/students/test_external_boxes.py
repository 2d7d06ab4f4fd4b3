"""Students of external trainers learn a reason with its boxes, as their generation writes them."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tasks.media import Box, ImageRef
from tasks.models.image_cache import ImageCache, list_sides
from tasks.models.qwen_vl import read_qwen_vl
from tasks.packs.pack import load_pack
from tasks.prompts.box_forms import find_box_form
from tasks.prompts.boxes import compute_overlap
from tasks.prompts.parsing import parse
from tasks.prompts.pointing import add_boxes
from tasks.prompts.prompter import Prompter
from tasks.records import Sample
from tasks.students.asking import make_label_requests
from tasks.students.external import ExternalRecipe
from tasks.students.settings import ExternalSpec
from tests.tasks.making import generation, prediction, sample

SMALL = Path(__file__).with_name("small_trainer.py")
BUTTON = Box(ref="退款", corners=(60.0, 300.0, 240.0, 360.0))
REASONS = {"a": "有“退款”按钮"}


@pytest.fixture
def train(tmp_path: Path) -> list[Sample]:
    """An item with a reason that points, and one without a reason."""
    Image.new("RGB", (300, 500), "red").save(tmp_path / "a.png")
    digest = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    screen = ImageRef(path=str(tmp_path / "a.png"), sha256=digest, width=300, height=500)
    items = [sample("a", "看<|box_start|>", screen), sample("b", "看", screen)]
    return add_boxes(items, {"a": prediction("a", reason=REASONS["a"], boxes=(BUTTON,))})


def make_recipe(trainer: str, base: str, reasons: str, folder: Path) -> ExternalRecipe:
    command = (sys.executable, str(SMALL), "well", "${config}")
    spec = ExternalSpec.model_validate({"trainer": trainer, "base": base, "reasons": reasons, "command": command})
    asking = Prompter(
        load_pack("demo").model_copy(update={"boxes": True}), "base", max_pixels=112 * 168, min_pixels=56 * 56,
        texts={}, box_form=find_box_form(read_qwen_vl(base).model_type),
    )  # fmt: skip
    return ExternalRecipe(spec, asking, 7, REASONS, ImageCache(folder / "cache"))


@pytest.mark.parametrize("trainer", ["llamafactory", "swift"])
@pytest.mark.parametrize(
    "base", ["Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"]
)
def test_what_a_student_learns_to_write_is_read_as_the_box_that_was_meant(
    trainer: str, base: str, train: list[Sample], tmp_path: Path
) -> None:
    recipe = make_recipe(trainer, base, "always", tmp_path)
    folder = recipe.train(train, 0, tmp_path / "one", lambda *_: None)
    (file,) = (folder / "data").glob("labelstill.json*")
    text = file.read_text("utf-8")
    (row,) = json.loads(text if trainer == "llamafactory" else f"[{text}]")
    question, answer = (message["content"] for message in row["messages"])
    assert "<|box_start|>" not in question and "bbox_2d" not in question
    (request,) = make_label_requests(recipe.prompter, train[:1], with_reason=True)
    sides = list_sides(request, request, read_qwen_vl(base).patch_size)
    with Image.open(row["images"][0]) as seen:
        assert seen.size == sides[0]
    found = parse(request, generation(texts=(answer,), sides=sides), source="student", model="m")
    assert (found.label, found.reason, found.boxes[0].ref) == (train[0].given, REASONS["a"], "退款")
    assert compute_overlap(found.boxes[0], BUTTON) > 0.9


def test_reasons_and_their_boxes_make_another_student(train: list[Sample], tmp_path: Path) -> None:
    plain, reasoned, given = (
        make_recipe("swift", "Qwen/Qwen2-VL-2B-Instruct", reasons, tmp_path)
        for reasons in ("never", "always", "where_given")
    )
    unboxed = [item.model_copy(update={"boxes": ()}) for item in train]
    assert plain.digest(train, 0) == plain.digest(unboxed, 0)
    others = (reasoned.digest(train, 0), reasoned.digest(unboxed, 0), given.digest(train, 0))
    assert len({plain.digest(train, 0), *others}) == 4
    folder = given.train(train, 0, tmp_path / "one", lambda *_: None)
    rows = [json.loads(line) for line in (folder / "data" / "labelstill.jsonl").read_text("utf-8").splitlines()]
    assert ["<|box_start|>" in row["messages"][1]["content"] for row in rows] == [True, False]
