"""The review page in headless Chromium: judge by keyboard, save, import; and the command `labelstill review`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from typer.testing import CliRunner, Result

from flows.commands.review import app
from tasks.errors import ConfigError, JudgementError
from tasks.items.images import check_image
from tasks.media import Box, ImagePart, TextPart, VideoPart
from tasks.records import ReviewCase, content_digest
from tasks.review.page import write_review_page
from tasks.review.queue import write_queue
from tasks.review.verdicts import read_store
from tests.browser import in_browser, open_browser
from tests.recordings import draw_recording
from tests.tasks.making import draw_numbered_video

LABELS = ("申请退款", "查询物流", "反馈破损", "询问尺码", "询问用法")
ALERT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def make_cases(folder: Path, count: int = 20) -> list[ReviewCase]:
    """Every fourth has no candidate; given labels alternate between the first and the last."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (300, 500), "navy").save(folder / "screen.png")
    screen = check_image(folder / "screen.png", 10**7)
    return [
        ReviewCase(
            sample_id=f"item-{n}",
            parts=(
                TextPart(text=f"用户: 第{n}件 {ALERT}", turn=1),
                ImagePart(image=screen, turn=1),
                TextPart(text="\n客服: 您好", turn=2),
            ),
            labels=LABELS,
            given=LABELS[-(n % 2)],
            candidate=None if n % 4 == 3 else LABELS[1],
            student={LABELS[1]: 0.75, LABELS[0]: 0.25},
            reason=f"因为 {ALERT}",
        )
        for n in range(count)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_queue(make_cases(tmp_path / "data"), tmp_path / "run" / "review", title="Review")
    return tmp_path / "run"


@pytest.fixture
def complaints() -> list[str]:
    """What a page asked to load from elsewhere, logged, raised or opened."""
    return []


@pytest.fixture
def page(run: Path, complaints: list[str]) -> Iterator[Page]:
    """The run's page, opened as a file; it must end without complaints."""
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: complaints.append(f"error {error}"))
        page.on("console", lambda message: complaints.append(f"console {message.text}"))
        page.on("request", lambda request: complaints.append(request.url) if _is_elsewhere(request.url) else None)
        page.goto((run / "review" / "review.html").as_uri())
        yield page
    assert complaints == []


def _is_elsewhere(url: str) -> bool:
    return not url.startswith(("data:", "blob:", "file:")) or (url.startswith("file:") and "review.html" not in url)


def run_review(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"}, catch_exceptions=False)


def press_keys(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def save_verdicts(page: Page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "verdicts.jsonl"
    file = folder / "verdicts.jsonl"
    download.value.save_as(file)
    return file


@in_browser
def test_twenty_items_are_judged_by_keyboard_saved_and_imported(page: Page, run: Path, tmp_path: Path) -> None:
    counts, name = page.locator("#counts"), page.locator("#name")
    expect(counts).to_have_text("0 of 20 judged")
    expected: dict[str, str] = {}
    for n, case in enumerate(make_cases(tmp_path / "data")):
        expect(name).to_have_text(case.sample_id)
        key = ("1", "2", "3", "4")[n % 4]
        press_keys(page, key)
        if key == "3":
            page.keyboard.type("询问")
            expect(page.locator("#list li span")).to_have_text(["询问尺码", "询问用法"])
            press_keys(page, "ArrowDown", "Enter")
        expected[case.sample_id] = {"1": case.given, "2": LABELS[1], "3": "询问用法", "4": "neither"}[key]
        if n in (5, 6):  # a slip, undone: back on the same item, which is judged again
            press_keys(page, "u")
            expect(name).to_have_text(case.sample_id)
            expect(page.locator(".chosen")).to_have_count(0)
            press_keys(page, "4")
            expected[case.sample_id] = "neither"
    expect(counts).to_have_text("20 of 20 judged, 20 not saved")
    file = save_verdicts(page, tmp_path)
    expect(counts).to_have_text("20 of 20 judged")
    first = orjson.loads(file.read_bytes().splitlines()[0])
    asked = make_cases(tmp_path / "data")[0]
    assert first == {"id": "item-0", "verdict": LABELS[0], "given": LABELS[0], "content": content_digest(asked)}
    assert "20 new, 0 changed, 0 as before" in run_review("import", run, file, "--by", "Ann").output
    store = read_store(run / "review" / "verdicts.jsonl")
    assert {i: v.verdict for i, (v,) in store.items()} == expected
    assert {v.by for (v,) in store.values()} == {"Ann"}


@in_browser
def test_the_name_of_the_reviewer_is_saved_with_each_verdict(page: Page, tmp_path: Path) -> None:
    page.locator("#reviewer").fill("Anna 14")
    page.keyboard.press("Enter")
    press_keys(page, "1", "2")
    lines = [orjson.loads(line) for line in save_verdicts(page, tmp_path).read_bytes().splitlines()]
    assert [(line["id"], line["by"]) for line in lines] == [("item-0", "Anna 14"), ("item-1", "Anna 14")]


@in_browser
def test_a_blind_item_shows_two_labels_without_roles_and_no_evidence(page: Page, run: Path, tmp_path: Path) -> None:
    parts = make_cases(tmp_path / "data", 1)[0].parts
    blind = ReviewCase(
        sample_id="audited", parts=parts, labels=LABELS, given="", candidate=None, blind=True, choices=LABELS[2:4]
    )
    write_queue([blind], run / "review")
    page.reload()
    expect(page.locator("#choices .label")).to_have_text([*LABELS[2:4], "", "no label fits, or unusable"])
    expect(page.locator("#choices .role")).to_have_text(["", "", "other…", "neither"])
    expect(page.locator("#evidence h2")).to_have_text(["Audit"])
    press_keys(page, "2")
    (line,) = save_verdicts(page, tmp_path).read_bytes().splitlines()
    assert orjson.loads(line)["verdict"] == LABELS[3]


@in_browser
def test_markup_in_the_data_is_shown_as_text(page: Page) -> None:
    expect(page.locator("#item .text").first).to_have_text(f"第0件 {ALERT}")
    expect(page.locator("#evidence .prose")).to_have_text(f"因为 {ALERT}")
    expect(page.locator("#item .speaker")).to_have_text(["用户", "客服"])
    assert page.locator("#item img").count() == 1
    assert page.locator("#item img").evaluate("image => image.complete && image.naturalWidth") == 300
    assert page.evaluate("document.querySelectorAll('img').length") == 1


@in_browser
def test_the_content_policy_stops_an_injected_script(page: Page, complaints: list[str]) -> None:
    got_in = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.gotIn = true";
            document.body.append(script);
            return window.gotIn === true;
        }"""
    )
    assert not got_in
    (complaint,) = complaints
    assert "Content Security Policy" in complaint
    complaints.clear()


@in_browser
def test_a_reload_loses_nothing(page: Page, tmp_path: Path) -> None:
    press_keys(page, "1", "2", "4")
    page.reload()
    expect(page.locator("#counts")).to_have_text("3 of 20 judged, 3 not saved")
    expect(page.locator("#name")).to_have_text("item-3")
    press_keys(page, "ArrowLeft")
    expect(page.locator(".chosen .role")).to_have_text("neither")
    save_verdicts(page, tmp_path)
    press_keys(page, "1")
    page.reload()
    expect(page.locator("#counts")).to_have_text("3 of 20 judged, 1 not saved")


@in_browser
def test_a_rewritten_page_shows_imported_verdicts(page: Page, run: Path, tmp_path: Path) -> None:
    press_keys(page, "1", "1", "1")
    run_review("import", run, save_verdicts(page, tmp_path))
    press_keys(page, "4")  # judged here and not yet imported: outlives the new page
    expect(page.locator("#counts")).to_have_text("4 of 20 judged, 1 not saved")
    (tmp_path / "other.jsonl").write_bytes(orjson.dumps({"id": "item-1", "verdict": "反馈破损"}))
    assert "1 changed" in run_review("import", run, tmp_path / "other.jsonl").output
    assert "20 questions" in run_review("page", run).output
    page.reload()
    expect(page.locator("#counts")).to_have_text("4 of 20 judged, 1 not saved")
    press_keys(page, "ArrowLeft", "ArrowLeft", "ArrowLeft")
    expect(page.locator("#name")).to_have_text("item-1")
    expect(page.locator(".chosen .label")).to_have_text("反馈破损")


@in_browser
def test_a_verdict_undone_after_import_is_withdrawn(page: Page, run: Path, tmp_path: Path) -> None:
    press_keys(page, "1", "1")
    run_review("import", run, save_verdicts(page, tmp_path))
    press_keys(page, "u")
    expect(page.locator("#counts")).to_have_text("1 of 20 judged, 1 not saved")
    assert "1 as before, 1 taken back" in run_review("import", run, save_verdicts(page, tmp_path)).output
    assert set(read_store(run / "review" / "verdicts.jsonl")) == {"item-0"}


@in_browser
def test_filters_narrow_the_queue(page: Page) -> None:
    press_keys(page, "1", "1")
    page.select_option("#given-filter", LABELS[-1])
    expect(page.locator("#name")).to_have_text("item-1")
    expect(page.locator("#place")).to_have_text("1 of 10")
    page.select_option("#show", "open")
    expect(page.locator("#name")).to_have_text("item-3")
    expect(page.locator("#place")).to_have_text("1 of 9")
    press_keys(page, "ArrowRight", "ArrowRight", "ArrowLeft")
    expect(page.locator("#name")).to_have_text("item-5")
    press_keys(page, "4")
    expect(page.locator("#name")).to_have_text("item-7")
    press_keys(page, "u")
    expect(page.locator("#name")).to_have_text("item-5")
    expect(page.locator("#place")).to_have_text("2 of 9")


@in_browser
def test_a_missing_candidate_cannot_be_chosen_and_escape_leaves_the_list(page: Page) -> None:
    press_keys(page, "ArrowRight", "ArrowRight", "ArrowRight", "2")
    expect(page.locator("#message")).to_have_text("No other label is proposed for this item.")
    press_keys(page, "3", "Escape")
    expect(page.locator("#picker")).to_be_hidden()
    press_keys(page, "3")
    page.keyboard.type("us")  # typed into the filter, no commands; and no label to pick
    press_keys(page, "Enter", "Escape")
    expect(page.locator("#name")).to_have_text("item-3")
    expect(page.locator("#counts")).to_have_text("0 of 20 judged")


@in_browser
def test_linked_images_are_shown_and_missing_ones_marked(page: Page, run: Path, complaints: list[str]) -> None:
    run_review("page", run, "--link")
    page.reload()
    expect(page.locator("#item img")).to_have_js_property("naturalWidth", 300)
    (picture,) = (run / "review" / "images").iterdir()
    picture.unlink()
    page.reload()
    expect(page.locator("#item .note")).to_have_text(f"This image can't be shown. images/{picture.name}")
    complaints.clear()  # the links, and the one that led nowhere


def write_cases(run: Path, **changes: Any) -> None:
    cases = make_cases(run.parent / "data")
    write_queue([case.model_copy(update=changes) for case in cases], run / "review")


@in_browser
def test_the_item_is_scrolled_and_zoomed_by_keys(page: Page, run: Path) -> None:
    Image.new("RGB", (1080, 2400), "navy").save(run.parent / "tall.png")
    tall = ImagePart(image=check_image(run.parent / "tall.png", 10**7))
    write_cases(run, parts=(TextPart(text="客服: 您好\n" * 80), tall))
    page.reload()
    top = page.locator("#item").evaluate_handle("item => item")
    for key in ("ArrowDown", "PageDown", " ", "End"):
        before = top.evaluate("item => item.scrollTop")
        press_keys(page, key)
        assert top.evaluate("item => item.scrollTop") > before
    image = page.locator("#item img")
    assert image.evaluate("image => image.height") <= 800  # 80 % of the window
    press_keys(page, "z")
    assert image.evaluate("image => image.height") > 1000
    press_keys(page, "z", "1")
    expect(page.locator("#name")).to_have_text("item-1")
    assert top.evaluate("item => item.scrollTop") == 0
    assert page.evaluate("document.activeElement.id") == "item"


@in_browser
def test_on_a_phone_the_next_item_begins_in_view(page: Page, run: Path) -> None:
    write_cases(run, parts=(TextPart(text="客服: 您好\n" * 80),))
    page.set_viewport_size({"width": 400, "height": 800})
    page.reload()
    press_keys(page, "End")
    assert page.evaluate("window.scrollY") > 500
    press_keys(page, "1")
    box, head = page.locator("#item .turn").first.bounding_box(), page.locator("header").bounding_box()
    assert box and head and head["height"] <= box["y"] + 1 < 400


@in_browser
def test_a_small_picture_is_enlarged_and_named(page: Page, run: Path) -> None:
    Image.new("L", (28, 28), 90).save(run.parent / "digit.png")
    write_cases(run, parts=(ImagePart(image=check_image(run.parent / "digit.png", 10**7)),))
    page.reload()
    image = page.get_by_alt_text("item-0: image 1 of 1", exact=True)
    assert image.evaluate("image => image.width") > 270


@in_browser
def test_the_chosen_button_is_pressed_for_screen_readers(page: Page) -> None:
    press_keys(page, "4", "ArrowLeft")
    pressed = page.locator("#choices button").evaluate_all("all => all.map(b => b.getAttribute('aria-pressed'))")
    assert pressed == ["false", "false", "false", "true"]


@in_browser
@pytest.mark.parametrize(
    ("labels", "typed", "picked"), [(("iv", "v", "vi", "x") * 3, "v", "v"), (("a b", "b", "ab"), "B", "b")]
)
def test_an_exact_match_comes_first(page: Page, run: Path, labels: tuple[str, ...], typed: str, picked: str) -> None:
    write_cases(run, labels=tuple(dict.fromkeys(labels)), given=labels[0], candidate=None)
    page.reload()
    press_keys(page, "3")
    page.keyboard.type(typed)
    press_keys(page, "Enter")
    expect(page.locator("#message")).to_have_text(f"item-0: {picked}")


@in_browser
@pytest.mark.parametrize(
    ("labels", "digit", "picked"),
    [(LABELS, "5", LABELS[4]), (tuple("9876543210"), "3", "3"), (tuple("abcdefghij"), "0", "j")],
)
def test_a_digit_chooses_among_up_to_ten_labels(
    page: Page, run: Path, labels: tuple[str, ...], digit: str, picked: str
) -> None:
    write_cases(run, labels=labels, given=labels[0], candidate=None)
    page.reload()
    press_keys(page, "3", digit)
    expect(page.locator("#message")).to_have_text(f"item-0: {picked}")


@in_browser
def test_among_more_labels_a_digit_is_typed_into_the_filter(page: Page, run: Path) -> None:
    write_cases(run, labels=tuple(f"label {n}" for n in range(11)), given="label 0", candidate=None)
    page.reload()
    press_keys(page, "3", "7", "Enter")
    expect(page.locator("#message")).to_have_text("item-0: label 7")


@in_browser
def test_an_empty_queue_says_so(page: Page, run: Path) -> None:
    write_queue([], run / "review")
    page.reload()
    expect(page.locator("#item")).to_have_text("No label is in doubt.")
    press_keys(page, "1", "2", "3", "4", "u", "s", "ArrowLeft")
    expect(page.locator("#message")).to_have_text("Nothing is judged yet.")


# --- the command, without a browser


def write_verdicts(folder: Path, **verdicts: str) -> Path:
    file = folder / "v.jsonl"
    file.write_bytes(
        b"".join(orjson.dumps({"id": i.replace("_", "-"), "verdict": v}) + b"\n" for i, v in verdicts.items())
    )
    return file


def test_imported_verdicts_are_reported_and_listed(run: Path, tmp_path: Path) -> None:
    output = run_review(
        "import", run, write_verdicts(tmp_path, item_0="neither", item_1="查询物流"), "--by", "[Ann]"
    ).output
    assert "2 new, 0 changed, 0 as before, 0 taken back" in output
    assert "2 of 20 judged" in output and "`labelstill run` again" in output
    output = run_review("import", run, write_verdicts(tmp_path, item_0="反馈破损"), "--by", "[Ann]").output
    assert "0 new, 1 changed" in output and "changed: item-0" in output
    listed = run_review("list", run).output
    assert "[Ann]" in listed and "2 of 20 judged, 0 verdicts no longer used" in listed


def test_an_item_that_left_the_queue_is_named_and_the_others_are_imported(run: Path, tmp_path: Path) -> None:
    output = run_review("import", run, write_verdicts(tmp_path, item_0="neither", nobody="neither")).output
    assert "1 new" in output and "not imported: line 2: item nobody is not in this run's review queue" in output
    assert set(read_store(run / "review" / "verdicts.jsonl")) == {"item-0"}
    with pytest.raises(JudgementError, match=r"v\.jsonl, line 1: item nobody is not in this run's review queue"):
        run_review("import", run, write_verdicts(tmp_path, nobody="neither"))


def test_a_disagreement_is_reported_listed_and_marked_in_the_queue(run: Path, tmp_path: Path) -> None:
    run_review("import", run, write_verdicts(tmp_path, item_0="neither", item_1="neither"), "--by", "Ann")
    output = run_review("import", run, write_verdicts(tmp_path, item_0="查询物流"), "--by", "Ben").output
    assert "disagreement, to be judged again: item-0 (Ann: neither, Ben: 查询物流)" in output
    assert "1 of 20 judged, 0 verdicts no longer used, 1 disagreements" in run_review("list", run).output
    run_review("page", run)
    assert [c.sample_id for c in _read_queue(run) if c.disagreed] == ["item-0"]
    run_review("import", run, write_verdicts(tmp_path, item_0="查询物流"), "--by", "Ann")
    run_review("page", run)
    assert not any(c.disagreed for c in _read_queue(run))


def test_a_run_without_a_queue_is_named(tmp_path: Path) -> None:
    for command in (["list"], ["page"], ["export", "--to", "t.json"]):
        with pytest.raises(ConfigError, match=r"review/cases\.jsonl: there is no review queue"):
            run_review(command[0], tmp_path, *command[1:])
    assert list(tmp_path.iterdir()) == []


def test_a_verdict_on_changed_content_is_kept_but_not_used(run: Path, tmp_path: Path) -> None:
    run_review("import", run, write_verdicts(tmp_path, item_0="neither", item_1="neither"))
    changed = [c.model_copy(update={"parts": c.parts[:1]}) if c.sample_id == "item-0" else c for c in _read_queue(run)]
    write_queue(changed, run / "review")
    listed = run_review("list", run).output
    assert "not used" in listed and "1 of 20 judged, 1 verdicts no longer used" in listed
    run_review("page", run)
    page = (run / "review" / "review.html").read_text(encoding="utf-8")
    assert page.count('"verdict": "neither"') == 1
    assert set(read_store(run / "review" / "verdicts.jsonl")) == {"item-0", "item-1"}


def _read_queue(run: Path) -> list[ReviewCase]:
    return [ReviewCase.model_validate_json(line) for line in (run / "review" / "cases.jsonl").read_bytes().splitlines()]


def test_label_studio_gets_the_queue_and_its_export_is_imported(run: Path, tmp_path: Path) -> None:
    run_review("import", run, write_verdicts(tmp_path, item_0="neither"))
    assert "19 tasks" in run_review("export", run, "--to", tmp_path / "open.json", "--open").output
    output = run_review("export", run, "--to", tmp_path / "tasks.json").output
    assert "20 tasks" in output and "tasks.xml" in output
    tasks: list[dict[str, Any]] = orjson.loads((tmp_path / "tasks.json").read_bytes())
    for n, choice in ((0, "查询物流"), (2, "neither")):
        value = {"choices": [choice]}
        result = [{"from_name": "verdict", "to_name": "dialogue", "type": "choices", "value": value}]
        tasks[n]["annotations"] = [{"result": result, "was_cancelled": False, "updated_at": "2026-01-01T00:00:00Z"}]
    back = [{"annotations": []} | task for task in tasks]
    (tmp_path / "export.json").write_bytes(orjson.dumps(back))
    assert "1 new, 1 changed" in run_review("import", run, tmp_path / "export.json").output
    store = read_store(run / "review" / "verdicts.jsonl")
    assert {i: v.verdict for i, (v,) in store.items()} == {"item-0": "查询物流", "item-2": "neither"}


def test_an_export_must_go_to_a_json_file(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.xml: .* must end in \.json"):
        run_review("export", run, "--to", tmp_path / "tasks.xml")


@in_browser
def test_boxes_lie_on_what_they_were_drawn_around(tmp_path: Path) -> None:
    drawn = Image.new("RGB", (300, 500), "white")
    drawn.paste("red", (60, 100, 210, 150))
    drawn.save(tmp_path / "screen.png")
    screen = check_image(tmp_path / "screen.png", 10**7)
    box = Box(ref="退款", corners=(60, 100, 210, 150))
    case = ReviewCase(
        sample_id="a", parts=(ImagePart(image=screen),), boxes=(box,), labels=LABELS, given=LABELS[0], candidate=None
    )
    write_review_page([case], tmp_path / "review.html", title="Boxes")
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto((tmp_path / "review.html").as_uri())
        for _ in range(2):  # as it opens, and at full size
            image, shown = page.locator("#item img").bounding_box(), page.locator("#item .box").bounding_box()
            assert image is not None and shown is not None
            scale = image["width"] / 300
            assert shown["x"] - image["x"] == pytest.approx(60 * scale, abs=1)
            assert shown["y"] - image["y"] == pytest.approx(100 * scale, abs=1)
            assert (shown["width"], shown["height"]) == pytest.approx((150 * scale, 50 * scale), abs=1)
            page.locator("#item img").click()
        assert page.locator("#item .box span").inner_text() == "退款"
        page.screenshot(path=os.environ.get("BOXES_PNG", str(tmp_path / "page.png")))


@in_browser
def test_a_recording_is_played_by_key_and_its_frames_fit_a_phone(tmp_path: Path) -> None:
    video = draw_numbered_video(tmp_path, frames=20)
    draw_recording(Path(video.path))
    broken = video.model_copy(update={"path": str(tmp_path / "broken.webm"), "sha256": "b"})
    Path(broken.path).write_bytes(b"no film")
    fields = {"labels": LABELS, "given": LABELS[0], "candidate": None}
    cases = [ReviewCase(sample_id=v.sha256, parts=(VideoPart(video=v),), **fields) for v in (video, broken)]
    write_review_page(cases, tmp_path / "review.html", title="Recordings")
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.goto((tmp_path / "review.html").as_uri())
        page.keyboard.press("p")
        page.wait_for_function("document.querySelector('#item video').currentTime > 0")
        page.locator("#item video").focus()
        page.keyboard.press(" ")  # the player's own key, and no scrolling
        page.wait_for_function("document.querySelector('#item video').paused")
        assert page.locator("#item .strip img").count() == 8
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        page.locator("#item").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#item .recording .note")).to_have_text("This browser can't play the recording.")
        assert page.locator("#item .strip img").count() == 8
