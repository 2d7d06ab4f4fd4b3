"""A review page as the page server gives it out, in real headless Chromium: judged, saved, and asked about after a
reload, with nothing refused by its policies."""

import threading
from pathlib import Path

import pytest
from playwright.sync_api import expect

from flows.service.pages import PageServer, PageSettings, make_link
from tasks.review.queue import write_queue
from tests.browser import open_browser
from tests.conftest import free_port
from tests.flows.test_review_page import make_cases


@pytest.mark.browser
@pytest.mark.parametrize("inline", [True, False])
def test_a_served_review_page_works(tmp_path: Path, inline: bool) -> None:
    page_file = tmp_path / "artifacts" / "run" / "review" / "review.html"
    write_queue(make_cases(tmp_path / "data", 3), page_file.parent, title="Review", inline=inline)
    port = free_port()
    settings = PageSettings((tmp_path / "artifacts").resolve(), "127.0.0.1", port, f"http://127.0.0.1:{port}")
    complaints: list[str] = []
    with PageServer(settings) as server, open_browser() as browser:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(make_link(page_file, settings) or "")
        expect(page.locator("#counts")).to_have_text("0 of 3 judged")
        expect(page.locator("#item img")).to_have_js_property("naturalWidth", 300)
        page.keyboard.press("1")
        expect(page.locator("#counts")).to_have_text("1 of 3 judged, 1 not saved")
        page.reload()
        expect(page.locator("#counts")).to_have_text("1 of 3 judged, 1 not saved")
        with page.expect_download() as download:
            page.keyboard.press("s")
        assert download.value.suggested_filename == "verdicts.jsonl"
        server.shutdown()
    assert [line for line in complaints if "favicon" not in line and "404" not in line] == []
