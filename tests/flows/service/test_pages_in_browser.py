"""A review page as the page server gives it out, in real headless Chromium: judged, saved, and asked about after a
reload, with nothing refused by its policies."""

import os
import shutil
import threading
import warnings
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from flows.service.pages import PageServer, PageSettings, make_link
from tasks.review.queue import write_queue
from tests.conftest import free_port
from tests.flows.test_review_page import make_cases

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.browser
def test_a_served_review_page_works(tmp_path: Path) -> None:
    if CHROMIUM is None:
        warnings.warn("NO CHROMIUM: the served review page was not looked at", stacklevel=1)
        pytest.skip("no Chromium on PATH or in $CHROMIUM")
    page_file = tmp_path / "artifacts" / "run" / "review" / "review.html"
    write_queue(make_cases(tmp_path / "data", 3), page_file.parent, title="Review")
    port = free_port()
    settings = PageSettings((tmp_path / "artifacts").resolve(), "127.0.0.1", port, f"http://127.0.0.1:{port}")
    complaints: list[str] = []
    with PageServer(settings) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-proxy-server"],
        )
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(make_link(page_file, settings) or "")
        expect(page.locator("#counts")).to_have_text("0 of 3 judged")
        page.keyboard.press("1")
        expect(page.locator("#counts")).to_have_text("1 of 3 judged, 1 not saved")
        page.reload()
        expect(page.locator("#counts")).to_have_text("1 of 3 judged, 1 not saved")
        with page.expect_download() as download:
            page.keyboard.press("s")
        assert download.value.suggested_filename == "verdicts.jsonl"
        browser.close()
        server.shutdown()
    assert [line for line in complaints if "favicon" not in line and "404" not in line] == []
