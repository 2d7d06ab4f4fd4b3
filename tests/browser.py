"""Chromium for the tests of pages; without one they skip loudly."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

in_browser = pytest.mark.browser


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Context manager: run Chromium from $CHROMIUM or PATH, which may load nothing in the background."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        warnings.warn("NO CHROMIUM: pages were not looked at; install chromium or set $CHROMIUM", stacklevel=3)
        pytest.skip("no Chromium on PATH or in $CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
                *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
            ],
        )
        yield browser
        browser.close()
