import base64
import io
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import ExifTags, Image

from tasks.errors import ConfigError, ManifestError
from tasks.items.images import check_image
from tasks.media import Box, ImageRef
from tasks.records import ReviewCase, content_digest
from tasks.review.images import SHOWN_PIXELS, encode_image
from tasks.review.page import write_review_page
from tasks.review.queue import read_queue, write_queue
from tasks.review.verdicts import Verdict
from tasks.storage.json_lines import write_json_lines
from tests.tasks.making import image, parts, sample

LABELS = ("申请退款", "查询物流", "反馈破损", "询问尺码", "询问用法", "询问优惠")


def case(id: str = "s", *content: str | ImageRef, **fields: Any) -> ReviewCase:
    values: dict[str, Any] = {
        "parts": parts(*(content or (f"用户: {id}",))),
        "labels": LABELS,
        "given": LABELS[0],
        "candidate": LABELS[1],
    }
    return ReviewCase(sample_id=id, **values | fields)


def picture(file: Path, size: tuple[int, int] = (40, 60), color: str = "red", **fields: Any) -> ImageRef:
    Image.new("RGB", size, color).save(file, **fields)
    return check_image(file, 10**9)


def elements(page: Path) -> dict[str, Any]:
    """The data elements of a page by id, as a browser would cut them: each ends at the first `</script`."""
    found = re.findall(
        r'<script type="application/json" id="([\w-]+)">(.*?)</script', page.read_text(encoding="utf-8"), re.S
    )
    return {name: orjson.loads(text) for name, text in found}


def decoded(url: str) -> Image.Image:
    head, data = url.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_case_has_the_digest_of_its_sample() -> None:
    content = ("用户: 你好", image("a"), "这个")
    assert content_digest(case("one", *content)) == content_digest(sample("other", *content))


def test_the_page_holds_the_cases_in_order_and_the_verdicts(tmp_path: Path) -> None:
    page = tmp_path / "new" / "review.html"
    write_review_page([case("b"), case("a")], page, title="T", verdicts={"a": "neither", "elsewhere": "neither"})
    found = elements(page)
    listed = found["queue"]["cases"]
    assert [(c["id"], c["verdict"]) for c in listed] == [("b", None), ("a", "neither")]
    assert listed[0]["content"] == content_digest(case("b"))
    assert found["case-0"]["parts"] == [{"turn": 0, "text": "用户: b"}]
    assert os.listdir(page.parent) == ["review.html"]


def test_progress_is_kept_under_the_queue_and_not_under_its_verdicts(tmp_path: Path) -> None:
    keys = {}
    for name, cases, verdicts in [
        ("plain", [case("a")], {}),
        ("judged", [case("a")], {"a": "neither"}),
        ("other text", [case("a", "用户: 别的")], {}),
        ("other given", [case("a", given=LABELS[1])], {}),
    ]:
        write_review_page(cases, tmp_path / "p.html", title="", verdicts=verdicts)
        keys[name] = elements(tmp_path / "p.html")["queue"]["key"]
    assert keys["plain"] == keys["judged"]
    assert len(set(keys.values())) == 3


HOSTILE = "</script><script>alert(1)</script><!--<script> & \u2028 {{data}} {{script}}"


def test_nothing_of_the_data_becomes_part_of_the_page(tmp_path: Path) -> None:
    write_review_page([case("plain")], tmp_path / "plain.html", title="plain")
    hostile = case(HOSTILE, HOSTILE, labels=(HOSTILE, "b"), given=HOSTILE, candidate="b", reason=HOSTILE, why=HOSTILE)
    write_review_page([hostile], tmp_path / "p.html", title=HOSTILE, verdicts={HOSTILE: HOSTILE})
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    plain = (tmp_path / "plain.html").read_text(encoding="utf-8")
    for tag in ("<script", "</script", "<!--"):
        assert text.count(tag) == plain.count(tag), tag
    assert "<title>&lt;/script&gt;&lt;script&gt;alert(1)" in text
    found = elements(tmp_path / "p.html")
    assert found["case-0"]["parts"][0]["text"] == found["case-0"]["reason"] == HOSTILE
    assert found["queue"]["cases"][0]["verdict"] == HOSTILE


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    write_review_page([case("a", picture(tmp_path / "a.png"))], tmp_path / "p.html", title="T")
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["']|url\((?!data:)|@import|https?:""", text)
    assert "default-src 'none'" in text


def test_an_image_is_inlined_once_and_before_its_case(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "1.png"), picture(tmp_path / "2.png", color="blue")
    cases = [case("a", "看", one, two), case("b", two, two)]
    write_review_page(cases, tmp_path / "p.html", title="T")
    found = elements(tmp_path / "p.html")
    assert list(found) == ["queue", "image-0", "image-1", "case-0", "case-1"]
    assert found["case-0"]["parts"][1] == {"turn": 0, "width": 40, "height": 60, "boxes": [], "image": "image-0"}
    assert [p["image"] for p in found["case-1"]["parts"]] == ["image-1", "image-1"]
    red, _, blue = decoded(found["image-1"]["url"]).convert("RGB").getpixel((5, 5))  # pyright: ignore
    assert blue > 230 and red < 30


def test_links_lead_to_pictures_beside_the_page(tmp_path: Path) -> None:
    (tmp_path / "my images").mkdir()
    there = picture(tmp_path / "my images" / "图 #1.png")
    write_review_page([case("a", there)], tmp_path / "run" / "p.html", title="T", inline=False)
    url = elements(tmp_path / "run" / "p.html")["image-0"]["url"]
    assert Image.open(tmp_path / "run" / url).size == (40, 60)


def test_a_picture_is_encoded_once_and_goes_with_its_case(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "1.png"), picture(tmp_path / "2.png", color="blue")
    page = tmp_path / "run" / "p.html"
    write_review_page([case("a", one), case("b", two)], page, title="T")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "images").iterdir()}
    assert len(before) == 2
    Path(one.path).unlink()
    write_review_page([case("a", one)], page, title="T", verdicts={"a": "neither"})
    (kept,) = (tmp_path / "run" / "images").iterdir()
    assert kept.stat().st_mtime_ns == before[kept]
    assert "url" in elements(page)["image-0"]


def test_chinese_is_shown_where_no_font_for_it_is_installed(tmp_path: Path) -> None:
    write_review_page([case("a", "看")], tmp_path / "p.html", title="T")
    assert 'font-family: "Card Sans"' in (tmp_path / "p.html").read_text(encoding="utf-8")
    latin = case("a", "look", labels=("é",), given="é", candidate=None)
    write_review_page([latin], tmp_path / "p.html", title="T")
    assert "@font-face" not in (tmp_path / "p.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n torn", b"<svg/>"])
def test_a_broken_image_is_a_note_in_its_place(content: bytes | None, tmp_path: Path) -> None:
    broken = ImageRef(path=str(tmp_path / "broken.png"), sha256="x", width=10, height=10)
    if content is not None:
        Path(broken.path).write_bytes(content)
    write_review_page([case("a", broken, "其余")], tmp_path / "p.html", title="T")
    found = elements(tmp_path / "p.html")
    assert found["image-0"]["note"].startswith("This image can't be shown. broken.png: ")
    assert found["case-0"]["parts"][1]["text"] == "其余"


def test_a_screenshot_is_shown_smaller_but_in_its_shape(tmp_path: Path) -> None:
    shown = decoded(encode_image(picture(tmp_path / "a.jpg", (1080, 2400))))
    assert shown.size == (540, 1200)
    assert shown.width * shown.height <= SHOWN_PIXELS * 1.001
    assert decoded(encode_image(picture(tmp_path / "b.png", (40, 60)))).size == (40, 60)


def test_a_turned_photo_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    ref = picture(tmp_path / "a.jpg", (3000, 2000), exif=exif)
    assert (ref.width, ref.height) == (2000, 3000)
    assert decoded(encode_image(ref)).size == (658, 987)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert decoded(encode_image(check_image(tmp_path / "a.png", 10**6))).convert("RGB").getpixel((3, 3)) == (
        255,
        255,
        255,
    )


def test_the_likeliest_labels_are_shown_with_given_and_candidate(tmp_path: Path) -> None:
    student = dict(zip(LABELS, (0.01, 0.02, 0.07, 0.1, 0.3, 0.5), strict=True))
    teacher = dict(zip(LABELS, (0.9, 0.02, 0.05, 0.02, 0.01, 0.0), strict=True))
    cases = [case("a", student=student, teacher=teacher), case("b", student=student, candidate=None), case("c")]
    write_review_page(cases, tmp_path / "p.html", title="T")
    found = elements(tmp_path / "p.html")
    rows = found["case-0"]["rows"]
    assert [r["label"] for r in rows] == ["申请退款", "询问优惠", "询问用法", "反馈破损", "询问尺码", "查询物流"]
    assert (rows[0]["student"], rows[0]["teacher"]) == (0.01, 0.9)
    assert [r["label"] for r in found["case-1"]["rows"]] == ["询问优惠", "询问用法", "询问尺码", "申请退款"]
    assert found["case-2"]["rows"] == []


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    noise = [Image.effect_noise((900, 900), 90).convert("RGB") for _ in range(12)]
    refs = []
    for number, drawn in enumerate(noise):
        drawn.save(tmp_path / f"{number}.jpg")
        refs.append(check_image(tmp_path / f"{number}.jpg", 10**9))
    del noise
    peaks = []
    for count in (3, 12):
        cases = [case(str(n), ref) for n, ref in enumerate(refs[:count])]
        tracemalloc.start()
        write_review_page(cases, tmp_path / "p.html", title="T")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "p.html").stat().st_size > 1_000_000
    assert peaks[1] < 1.3 * peaks[0]


def test_a_failed_write_leaves_the_old_page_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    write_review_page([case("old")], page, title="T")
    before = page.read_bytes()
    with pytest.raises(TypeError):
        write_review_page([case("new")], page, title="T", verdicts={"new": object()})  # pyright: ignore
    assert page.read_bytes() == before
    assert os.listdir(tmp_path) == ["p.html"]


def test_a_queue_is_read_as_it_was_written(tmp_path: Path) -> None:
    cases = [case("a", "看\u2028这", image("a"), student={LABELS[0]: 0.25}, gain=0.5), case("b", candidate=None)]
    given = Verdict(id="b", content=content_digest(cases[1]), verdict="neither", given=LABELS[0], at="", by="Ann")
    write_json_lines(tmp_path / "review" / "verdicts.jsonl", [given])
    write_queue(cases, tmp_path / "review", title="Run & review")
    assert read_queue(tmp_path / "review") == cases
    found = elements(tmp_path / "review" / "review.html")
    assert [c["verdict"] for c in found["queue"]["cases"]] == [None, "neither"]
    assert "<h1>Run &amp; review</h1>" in (tmp_path / "review" / "review.html").read_text(encoding="utf-8")


def test_a_blind_case_offers_its_two_labels_in_order_and_shows_nothing_else(tmp_path: Path) -> None:
    blind = case("a", given="", candidate=None, blind=True, choices=(LABELS[1], LABELS[4]))
    write_queue([blind, case("b")], tmp_path)
    found = elements(tmp_path / "review.html")
    shown = found["case-0"]
    assert (shown["blind"], shown["choices"]) == (True, [LABELS[1], LABELS[4]])
    assert (shown["candidate"], shown["reason"], shown["why"], shown["rows"]) == (None, "", "", [])
    assert found["queue"]["cases"][0]["given"] == ""
    assert (found["case-1"]["blind"], found["case-1"]["choices"]) == (False, list(LABELS[:2]))


def test_an_item_on_which_two_people_disagree_is_open_again_and_marked(tmp_path: Path) -> None:
    one = case("a")
    said = [(LABELS[0], "Ann"), ("neither", "Ben")]
    write_json_lines(
        tmp_path / "verdicts.jsonl",
        [Verdict(id="a", content=content_digest(one), verdict=v, given=LABELS[0], at="", by=by) for v, by in said],
    )
    write_queue([one, case("b")], tmp_path)
    assert [c.disagreed for c in read_queue(tmp_path)] == [True, False]
    found = elements(tmp_path / "review.html")
    assert (found["queue"]["cases"][0]["verdict"], found["case-0"]["disagreed"]) == (None, True)


def test_an_empty_queue_is_a_page_too(tmp_path: Path) -> None:
    write_queue([], tmp_path)
    assert read_queue(tmp_path) == []
    assert elements(tmp_path / "review.html")["queue"]["cases"] == []


def test_a_queue_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cases\.jsonl: there is no review queue"):
        read_queue(tmp_path)
    write_queue([case("a")], tmp_path)
    (tmp_path / "cases.jsonl").write_bytes((tmp_path / "cases.jsonl").read_bytes() + b'{"sample_id": "b"}\n')
    with pytest.raises(ManifestError, match=r"cases\.jsonl, line 2: not a valid review case"):
        read_queue(tmp_path)


def test_each_image_has_its_boxes(tmp_path: Path) -> None:
    shown = [picture(tmp_path / f"{n}.png") for n in "ab"]
    boxes = (Box(image=1, ref="退款</script>", corners=(4, 6, 20, 30)),)
    write_review_page([case("s", *shown, boxes=boxes), case("t", *shown)], tmp_path / "review.html", title="T")
    found = elements(tmp_path / "review.html")
    assert [part["boxes"] for part in found["case-0"]["parts"]] == [
        [],
        [{"ref": "退款</script>", "corners": [4, 6, 20, 30]}],
    ]
    assert [part["boxes"] for part in found["case-1"]["parts"]] == [[], []]
