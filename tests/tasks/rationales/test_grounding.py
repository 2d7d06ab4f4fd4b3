"""Boxes of reasons against the words that were read on the images."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tasks.items.ocr import TextLine
from tasks.media import Box, ImageRef
from tasks.models.ask import Asker
from tasks.models.engines.engine import Usage
from tasks.models.engines.spec import EngineSpec
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import AskSettings
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.rationales.gate import LabelledReason, judge_text_and_boxes
from tasks.rationales.grounding import judge_words_in_boxes
from tasks.rationales.reasoner import Reasons, find_reasons
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words import BadReason
from tasks.records import Generation, Request
from tests.tasks.making import generation, sample

SCREEN = ImageRef(path="/a.png", sha256="a", width=1000, height=1000)
ITEM = sample("s", "用户: 我要“退钱”", SCREEN)
LINES = (
    TextLine("Refund details", (100, 50, 380, 90)),
    TextLine("申请退款成功", (100, 200, 340, 240)),
    TextLine("合计￥1,204.50", (600, 800, 860, 840)),
)


def find_lines(images: Sequence[ImageRef]) -> list[Sequence[TextLine]]:
    return [LINES if image == SCREEN else () for image in images]


def judge(reason: str, *corners: tuple[float, float, float, float], ref: str = "") -> BadReason | None:
    return judge_words_in_boxes(reason, [Box(ref=ref, corners=c) for c in corners], ITEM, find_lines)


REFUNDED, TOTAL, NOTHING = (95.0, 195.0, 345.0, 245.0), (590.0, 790.0, 870.0, 850.0), (600.0, 300.0, 900.0, 400.0)


@pytest.mark.parametrize("marks", ["「」", "『』", "“”", "‘’", "''", '""', "《》"])
def test_quoted_words_must_be_in_the_box(marks: str) -> None:
    reason = f"写着{marks[0]}申请退款成功{marks[1]}几个字"
    assert judge(reason, REFUNDED) is None
    assert judge(reason, TOTAL) is judge(reason, NOTHING) is BadReason.BOX_ELSEWHERE


@pytest.mark.parametrize(
    "reason",
    [
        "写着“申请退軟成功”",  # one character in six was read wrongly
        "写着“申请…成功”",
        "写着“退款成功”",
        "写着“已申请退款成功，请等待”",  # the box holds a part of it
        "看到“查询物流”和“申请退款成功”",  # the first is a label
        "用户说“退钱”，页面写着“申请退款成功”",  # the first is from the dialogue
    ],
)
def test_some_of_the_quoted_words_are_enough(reason: str) -> None:
    assert judge(reason, REFUNDED) is None
    assert judge(reason, TOTAL) is BadReason.BOX_ELSEWHERE


@pytest.mark.parametrize("reason", ["红色的按钮", "用户说“退钱”", "这是“查询物流”", "有2件", "it's the seller's page"])
def test_a_reason_that_says_nothing_of_the_words_on_the_image_is_not_judged(reason: str) -> None:
    assert judge(reason, NOTHING) is judge(reason, REFUNDED) is None


def test_long_numbers_are_looked_for_without_quotation_marks() -> None:
    assert judge("合计是1204.50元", TOTAL) is None
    assert judge("合计是1204.50元", REFUNDED) is BadReason.BOX_ELSEWHERE
    assert judge("The 'Refund details' don't say 1204.50", (95, 40, 390, 95)) is None


def test_a_box_around_a_word_holds_this_word_of_its_line_only() -> None:
    assert judge("says “details”", (235, 45, 390, 95)) is None
    assert judge("says “Refund”", (260, 45, 390, 95)) is BadReason.BOX_ELSEWHERE


def test_each_box_with_words_must_hold_some_that_are_said_and_one_box_at_least() -> None:
    reason = "写着“申请退款成功”，旁边有红点"
    assert judge(reason, REFUNDED, NOTHING) is None
    assert judge(reason, REFUNDED, TOTAL) is BadReason.BOX_ELSEWHERE
    assert judge(reason) is None
    assert judge("写着“完成”", TOTAL, ref="合计") is None


def test_a_box_around_nearly_everything_points_at_nothing() -> None:
    whole, left_half, poster = (0, 0, 1000, 1000), (0, 0, 450, 1000), TextLine("申请退款成功", (100, 200, 900, 500))
    assert judge("写着“申请退款成功”", whole) is BadReason.BOX_TOO_LARGE
    assert judge("写着“申请退款成功”", REFUNDED, whole) is BadReason.BOX_TOO_LARGE
    assert judge("写着“查无此字”", whole) is BadReason.BOX_ELSEWHERE
    assert judge("写着“申请退款成功”", left_half) is None
    boxes = [Box(corners=whole)]
    assert judge_words_in_boxes("写着“申请退款成功”", boxes, ITEM, lambda _: [[poster, *LINES[2:]]]) is None


def test_without_read_text_words_are_not_judged() -> None:
    one = LabelledReason(ITEM, "查询物流", "写着“申请退款成功”", (Box(corners=NOTHING),))
    assert judge_text_and_boxes(one, PACK, None) is None
    assert judge_text_and_boxes(one, PACK, find_lines) is BadReason.BOX_ELSEWHERE


# --- asked again ----------------------------------------------------------------------------------------------

PACK = load_pack("demo").model_copy(update={"boxes": True})
SAID = "写着“申请退款成功”几个字"


class Pointer:
    """Points at `first`, and after a complaint at the words that it quotes."""

    fingerprint = "pointer"
    notes = ()

    def __init__(self, first: str) -> None:
        self.first = first
        self.suffixes: list[str] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        for request in requests:
            self.suffixes.append(request.suffix)
            box = "(95,195),(345,245)" if "不行" in request.suffix else self.first
            yield generation(request.key, texts=(f"{SAID}<|box_start|>{box}<|box_end|>",))

    def usage(self) -> Usage:
        return Usage()

    def close(self) -> None:
        """Nothing to free."""

    def find(self, attempts: int = 2) -> Reasons:
        asking = Prompter(PACK, "m", max_pixels=9**6, min_pixels=9, texts={})
        spec, ask = EngineSpec(engine="scripted", model="scripted:"), AskSettings(attempts=attempts)
        with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
            asker = Asker(ledger, lambda _: self)
            return find_reasons(asker, asking, [ITEM], spec, RationaleSettings(), ask, 0, find_lines)


@pytest.mark.parametrize(
    ("first", "fault", "word"),
    [
        ("(600,300),(900,400)", "reason_box_without_its_words", "引号里的字不在框内"),
        ("(0,0),(1000,1000)", "reason_box_too_large", "框太大"),
        ("(600,300),(500,400)", "reason_box_unusable", "框不完整，或不在图片之内"),
        ("(600,300),(1500,400)", "reason_box_unusable", "框不完整，或不在图片之内"),
        ("(600,300)", "reason_box_unusable", "框不完整，或不在图片之内"),
    ],
)
def test_a_reason_with_a_bad_box_is_asked_for_again(first: str, fault: str, word: str) -> None:
    pointer = Pointer(first)
    found = pointer.find()
    assert found.first_faults == {fault: 1}
    assert word in pointer.suffixes[1]
    kept = found.kept["s"]
    assert (kept.reason, kept.attempt, kept.boxes) == (SAID, 1, (Box(corners=REFUNDED),))
    assert found.figures(0.5)["kept with boxes"] == 1
    assert Pointer(first).find(attempts=1).dropped["s"].reason == fault


def test_a_good_box_is_kept_at_once() -> None:
    assert Pointer("(95,195),(345,245)").find().kept["s"].attempt == 0
