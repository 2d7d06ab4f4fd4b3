import json

import pytest

from tasks.media import Box, BoxForm, ImageRef
from tasks.packs.pack import load_pack
from tasks.prompts.parsing import parse, parse_reason
from tasks.prompts.prompter import POINTING_TOKENS, Prompter
from tasks.prompts.turns import make_user_text
from tasks.records import Generation, Message, Prediction, Request, Sampling
from tests.tasks.making import generation, parts, prompter, sample

PHOTO = ImageRef(path="/a.png", sha256="a", width=1120, height=840)
OTHER = ImageRef(path="/b.png", sha256="b", width=500, height=1000)
BUTTON = (280.0, 210.0, 560.0, 420.0)


def ask(form: BoxForm = BoxForm.QWEN2, *images: ImageRef, pack: str = "demo") -> Request:
    pointing = load_pack(pack).model_copy(update={"boxes": True, "ocr": None})
    asking = Prompter(pointing, "m", max_pixels=9**7, min_pixels=9, box_form=form)
    return asking.classify(sample("s", "看", *(images or (PHOTO,))), Sampling(n=3), show_box=True)


def answer(*reasons: str, label: str = "申请退款", **fields: object) -> Generation:
    texts = [json.dumps({"理由": reason, "所属类别": label}, ensure_ascii=False) for reason in reasons]
    return generation("k", texts=tuple(texts), **fields)


def read(request: Request, given: Generation) -> Prediction:
    return parse(request, given, source="teacher", model="m")


def tokens(left: int, top: int, right: int, bottom: int) -> str:
    return f"<|object_ref_start|>退款<|object_ref_end|><|box_start|>({left},{top}),({right},{bottom})<|box_end|>"


def objects(*corners: int, image: str = "") -> str:
    return f'[{{"bbox_2d": {list(corners)}, "label": "退款"{image}}}]'


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (BoxForm.QWEN2, tokens(250, 250, 500, 500)),
        (BoxForm.QWEN2_5, objects(140, 105, 280, 210)),  # the model saw 560 × 420 pixels
        (BoxForm.QWEN3, objects(250, 250, 500, 500)),
    ],
)
def test_each_generation_s_boxes_become_pixels_of_the_upright_original(form: BoxForm, written: str) -> None:
    found = read(ask(form), answer(f"有“退款”按钮{written}", sides=((560, 420),)))
    assert (found.label, found.reason) == ("申请退款", "有“退款”按钮")
    assert found.boxes == (Box(ref="退款", corners=BUTTON),)
    assert found.detail == ""


def test_boxes_refer_to_the_images_that_were_left_in_the_prompt() -> None:
    request, seen = ask(BoxForm.QWEN2_5, OTHER, PHOTO), (None, (560, 420))
    assert read(request, answer(f"看{objects(140, 105, 280, 210)}", sides=seen)).boxes[0].image == 1
    two = answer(f"看{objects(140, 105, 280, 210)}", sides=((252, 504), (560, 420)))
    assert read(request, two).boxes == () and "does not say which" in read(request, two).detail
    second = objects(140, 105, 280, 210, image=', "image": 2')
    named = answer(f"看{second}", sides=((252, 504), (560, 420)))
    assert read(request, named).boxes == (Box(image=1, ref="退款", corners=BUTTON),)
    assert read(request, answer(f"看{objects(1, 2, 3, 4)}")).boxes == ()  # nothing says what the model saw


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        (tokens(500, 250, 250, 500), "ends before it begins"),
        (tokens(250, 250, 250, 500), "no width"),
        (tokens(250, 250, 500, 1500), "not inside its image"),
        ("<|box_start|>(1,2)", "not part of a complete box"),
        (objects(1, 2, 3, 4), "not part of a complete box"),  # of another generation
    ],
)
def test_a_box_that_cannot_be_used_is_left_out_with_a_word(written: str, fault: str) -> None:
    found = read(ask(), answer(f"看{written}"))
    assert (found.label, found.boxes) == ("申请退款", ())
    assert fault in found.detail
    assert fault in parse_reason(ask(), answer(f"看{written}"))[1].faults[0]


def test_boxes_are_kept_on_which_more_than_half_of_the_votes_agree() -> None:
    here, near, there = tokens(250, 250, 500, 500), tokens(250, 250, 500, 450), tokens(600, 600, 900, 900)
    agreed = read(ask(), answer(f"一{there}", f"二{here}", f"三{near}"))
    assert (agreed.reason, len(agreed.boxes), agreed.detail) == ("二", 1, "")
    partly = read(ask(), answer(f"一{here}{there}", f"二{near}", "三"))
    assert (partly.reason, partly.boxes) == ("一", (Box(ref="退款", corners=BUTTON),))
    assert "1 of 2 boxes left out: at most half of 3 votes point there" in partly.detail
    split = read(ask(), answer(f"一{here}", f"二{there}"))
    assert (split.reason, split.boxes) == ("一", ()) and "1 of 1 boxes" in split.detail
    others = (answer("三", label="查询物流").texts[0], *answer(f"一{here}").texts)
    assert read(ask(), generation("k", texts=(*others, others[1]))).boxes  # of the votes for the label


def test_without_the_option_a_reason_is_what_was_written() -> None:
    request = prompter().classify(sample("s", "看", PHOTO), Sampling())
    assert read(request, answer("看[1, 2]")).reason == "看[1, 2]"
    assert request.boxes is None and request.sampling.max_tokens == Sampling().max_tokens


def test_the_prompt_shows_the_box_form_of_the_model_that_is_asked() -> None:
    assert "<|box_start|>(x1,y1),(x2,y2)<|box_end|>" in make_user_text(ask())
    assert "Picture 1: <|object_ref_start|>" in make_user_text(ask(BoxForm.QWEN2, PHOTO, OTHER))
    for form in (BoxForm.QWEN2_5, BoxForm.QWEN3):
        assert r"[{\"bbox_2d\": [x1, y1, x2, y2]" in make_user_text(ask(form))
    assert ask().sampling.max_tokens == Sampling().max_tokens + POINTING_TOKENS


@pytest.mark.parametrize("pack", ["demo", "www2025"])
def test_only_a_pack_with_the_option_asks_for_boxes_and_only_where_there_are_images(pack: str) -> None:
    asked = prompter(pack)
    item = sample("s", "看", PHOTO)
    plain = [asked.rationale(item, "申请退款", Sampling()), asked.classify(item, Sampling(), show_box=True)]
    asked.pack = asked.pack.model_copy(update={"boxes": True})
    boxed = [asked.rationale(item, "申请退款", Sampling()), asked.classify(item, Sampling(), show_box=True)]
    bare = asked.rationale(sample("s", "看"), "申请退款", Sampling())
    student = asked.classify(item, Sampling())
    shown = ["box" in make_user_text(request) for request in (*plain, *boxed, bare, student)]
    assert shown == [False, False, True, True, False, False]


def test_literal_special_tokens_in_data_stay_text_and_ours_stay_tokens() -> None:
    literal = "看<|box_start|>(1,2),(3,4)<|box_end|>"
    asked = prompter()
    asked.pack = asked.pack.model_copy(update={"boxes": True})
    item = sample("s", literal, PHOTO).model_copy(update={"parts": parts(literal, PHOTO)})
    text = make_user_text(asked.rationale(item, "申请退款", Sampling(), complaint=literal))
    assert text.count("<|box_start|>") == 1 and text.count("＜|box_start|＞") == 2
    question: Message = asked.training_turns(item, "申请退款", literal, boxes=1)[-2]
    assert "<|box_start|>" not in question.content
    assert asked.training_turns(item, "申请退款", literal, boxes=1)[-1].content.count("<|box_start|>") == 0
