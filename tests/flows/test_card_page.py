"""The card of a run in headless Chromium, light and dark; and the command that writes it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from typer.testing import CliRunner

from flows.commands.main import app
from tasks.errors import ConfigError
from tasks.report.card.card import CardSettings, read_settings, write_card
from tests.browser import in_browser, open_browser
from tests.tasks.report.made_run import ATTACK, make_run

TEXT = f"一整套：龘靐齉 ✓ 😀 →①㊙ “引号” {ATTACK}"

_FIND_BOXES = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  context.canvas.width = context.canvas.height = 40;
  const drawn = (text) => {
    context.clearRect(0, 0, 40, 40);
    context.font = '24px "Card Sans", "Card Symbols", monospace';
    context.fillText(text, 4, 30);
    return context.getImageData(0, 0, 40, 40).data.join();
  };
  const boxes = [0xe0f0, 0x10ffff].map((code) => drawn(String.fromCodePoint(code)));
  const shown = new Set(document.documentElement.textContent.replace(/@font-face[^}]*}/g, ""));
  return [...shown].filter((c) => c.trim() && boxes.includes(drawn(c)));
}"""
"""Return the characters of the page that are drawn as a box, as characters are that no font has."""
_LOWEST_CONTRAST = """() => {
  const light = (colour) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/rgba\\(.*, 0\\)|transparent/.test(colour)) return light(colour);
    }
  };
  const found = [];
  for (const e of document.querySelectorAll("p, li, td, th, h1, h2, h3, a, summary, text, .name, .value, .more")) {
    const style = getComputedStyle(e);
    const [a, b] = [light(e.tagName === "text" ? style.fill : style.color), behind(e)].sort((x, y) => y - x);
    found.push((a + .05) / (b + .05));
  }
  return Math.min(...found);
}"""
"""Return the lowest contrast of any text with its background, as WCAG 2.2 defines it."""


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("card") / "run", text=TEXT)
    return write_card(run, CardSettings(title="对话 “设置” <b>", pack="demo"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def complaints() -> list[str]:
    """What the page loaded from elsewhere, logged, raised or opened; filled by `page`."""
    return []


@pytest.fixture(params=["light", "dark"])
def page(card: Path, browser: Browser, complaints: list[str], request: pytest.FixtureRequest) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: complaints.append(f"error {error}"))
    page.on("console", lambda message: complaints.append(f"console {message.text}"))
    page.on("request", lambda request: complaints.append(request.url) if not _is_own(request.url) else None)
    page.goto(card.as_uri())
    page.evaluate("document.fonts.ready")
    yield page
    page.close()
    assert complaints == []


def _is_own(url: str) -> bool:
    return url.startswith("data:") or url.endswith("/card/index.html")


@in_browser
def test_every_character_has_a_glyph_of_the_pages_own_fonts(page: Page) -> None:
    faces = page.evaluate("[...document.fonts].map((face) => face.family + ' ' + face.status)")
    assert sorted(f.replace('"', "") for f in faces) == ["Card Sans loaded", "Card Symbols loaded"]
    assert page.evaluate(_FIND_BOXES) == []


@in_browser
def test_a_character_without_a_glyph_is_found(page: Page) -> None:
    page.evaluate("document.body.append('\\uE123')")
    assert page.evaluate(_FIND_BOXES) == ["\ue123"]


@in_browser
def test_text_has_enough_contrast(page: Page) -> None:
    assert page.evaluate(_LOWEST_CONTRAST) >= 4.5


@in_browser
@pytest.mark.parametrize("width", [1280, 760, 400])
def test_the_page_itself_never_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@in_browser
def test_scripts_in_data_are_shown_and_not_run(page: Page) -> None:
    assert page.title() == "对话 “设置” <b>"
    assert page.locator(".said", has_text="<script>document.title='taken'</script>").count() > 3
    assert page.locator("script").count() == 0


@in_browser
def test_charts_follow_the_colour_scheme(page: Page) -> None:
    ink = page.evaluate("getComputedStyle(document.body).color")
    fills = page.evaluate("[...document.querySelectorAll('#flow svg text')].map((e) => getComputedStyle(e).fill)")
    assert ink in fills


def test_the_command_writes_the_card_and_remembers_its_options(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 6)
    first = CliRunner().invoke(
        app, ["card", str(run), "--licence", "cc0-1.0", "--pack", "demo"], catch_exceptions=False
    )
    assert first.exit_code == 0 and "index.html" in first.output
    again = CliRunner().invoke(app, ["card", str(run), "--title", "New"], catch_exceptions=False)
    assert again.exit_code == 0
    assert read_settings(run) == CardSettings(title="New", licence="cc0-1.0", pack="demo")


def test_the_error_for_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        CliRunner().invoke(app, ["card", str(tmp_path / "nowhere")], catch_exceptions=False)
