"""The pages under the rules of axe-core, wide and narrow, light and dark; and a review without a mouse."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tasks.report.card.card import CardSettings, write_card
from tasks.review.queue import write_queue
from tests.browser import open_browser
from tests.flows.test_review_page import LABELS, make_cases, press_keys, save_verdicts
from tests.tasks.report.made_run import make_run
from tests.tasks.report.test_correction_report import Made, written

pytestmark = pytest.mark.browser
SIZES = {"wide": (1280, 900), "phone": (400, 800)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    write_queue(make_cases(folder / "data"), folder / "review", title="Review")
    for name, reviews in (("before", 0), ("after", 120)):
        written(Made().decide(reviews), folder / name)
    return {
        "review": folder / "review" / "review.html",
        "report before verdicts": folder / "before" / "report.html",
        "report": folder / "after" / "report.html",
        "card": write_card(make_run(folder / "run"), CardSettings(title="A run", pack="demo")),
    }


def find_serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:120]} ({one['help']})"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["review", "report before verdicts", "report", "card"])
def test_a_page_has_no_serious_finding(
    browser: Browser, pages: dict[str, Path], name: str, size: str, scheme: str
) -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # pyright: ignore
    page.goto(pages[name].as_uri())
    assert find_serious(page) == []
    if name == "review":
        press_keys(page, "3")
        assert find_serious(page) == []
    page.close()


@pytest.mark.parametrize("size", SIZES)
def test_twenty_items_are_reviewed_without_a_mouse(
    browser: Browser, pages: dict[str, Path], size: str, tmp_path: Path
) -> None:
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.goto(pages["review"].as_uri())
    wanted: list[str] = []
    for number, case in enumerate(make_cases(tmp_path / "data")):
        expect(page.locator("#name")).to_have_text(case.sample_id)
        top = page.locator("#item .turn").first.bounding_box()
        assert top and 0 <= top["y"] < height, "the item begins in view"
        press_keys(page, "ArrowDown", "z", "z")
        if number % 4 == 0:
            press_keys(page, "1")
            wanted.append(case.given)
        elif number % 4 == 1:
            press_keys(page, "2")
            wanted.append(LABELS[1])
        elif number % 4 == 2:
            press_keys(page, "3", "4")
            wanted.append(LABELS[3])
        else:
            press_keys(page, "4")
            wanted.append("neither")
    lines = [orjson.loads(line) for line in save_verdicts(page, tmp_path).read_bytes().splitlines()]
    assert [line["verdict"] for line in lines] == wanted
    page.close()
