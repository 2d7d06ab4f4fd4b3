import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tasks.items.images import check_image
from tasks.media import Box
from tasks.packs.pack import load_pack
from tasks.prompts.box_forms import BoxForm, find_boxes
from tasks.prompts.boxes import check_box, compute_overlap
from tasks.prompts.prompter import Prompter
from tasks.students.lora import LoraRecipe
from tasks.students.lora_dataset import make_dataset
from tasks.students.settings import StudentSpec
from tests.tasks.making import sample

pointing = Prompter(
    load_pack("demo").model_copy(update={"boxes": True}), "m", max_pixels=112 * 168, min_pixels=56 * 56, texts={}
)


@pytest.mark.parametrize("form", BoxForm)
def test_a_student_learns_boxes_on_the_picture_that_it_is_shown(form: BoxForm, tmp_path: Path) -> None:
    drawn = Image.new("RGB", (360, 540), "white")
    drawn.paste("red", (60, 120, 240, 300))
    drawn.save(tmp_path / "a.png")
    image = check_image(tmp_path / "a.png", 10**7)
    item = sample("a", image, boxes=(Box(ref="红", corners=(60, 120, 240, 300)),))
    with_reason, without = make_dataset(pointing, [(item, "红色"), (item, "")], patch_size=14, form=form)
    assert "box" not in without["completion"][0]["content"][0]["text"]
    (picture,) = with_reason["images"]
    seen = image.model_copy(update={"width": picture.width, "height": picture.height})
    reason, found = find_boxes(
        json.loads(with_reason["completion"][0]["content"][0]["text"])["理由"],
        form,
        [picture.size] if form.in_pixels else None,
    )
    red = picture.split()[1].point(lambda green: 255 * (green < 128)).getbbox()
    assert reason == "红色"
    assert compute_overlap(check_box(found[0], [seen]), Box(corners=red)) > 0.9


def test_boxes_that_no_reason_shows_make_no_other_student() -> None:
    spec = StudentSpec(base="maker/base")
    plain = sample("a", given="查询物流")
    boxed = plain.model_copy(update={"boxes": (Box(corners=(60, 120, 240, 300)),)})
    never, always = (LoraRecipe(spec, pointing, reasons=reasons) for reasons in ({}, {"a": "写着几个字"}))
    assert never.digest([plain], 0) == never.digest([boxed], 0)
    always = replace(always, spec=spec.model_copy(update={"reasons": "always"}))
    assert always.digest([plain], 0) != always.digest([boxed], 0)
