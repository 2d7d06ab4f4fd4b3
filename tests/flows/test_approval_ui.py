"""A version beyond the drift waits for a person, who answers in the real web UI in headless Chromium."""

import threading
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from tasks.dataset.drift import RelabelOutcome, RelabelState
from tasks.dataset.settings import ApprovalSettings
from tests.conftest import PrefectServer
from tests.flows.test_relabel import Watched, is_paused, pool, teacher
from tests.flows.test_web_ui import open_page, take_picture

__all__ = ["pool"]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
APPROVAL = ApprovalSettings(ask="drift", hours=0.1)


def test_a_person_publishes_a_version_beyond_the_drift(
    pool: Watched, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    pool.relabel()
    before, ended = pool.emitted(), list[RelabelState]()
    run = threading.Thread(
        target=lambda: ended.append(pool.relabel(teacher=teacher("first"), approval=APPROVAL)), daemon=True
    )
    run.start()
    with open_page() as page:
        ui = prefect_server.api_url.removesuffix("/api")
        page.goto(f"{ui}/runs/flow-run/{paused_run()}")
        answer_form(page, tmp_path)
        run.join(timeout=120)
        page.wait_for_timeout(3000)
        take_picture(page, "approval-4-ended", tmp_path)
    assert [state.outcome for state in ended] == [RelabelOutcome.PUBLISHED]
    assert pool.emitted() != before


def answer_form(page: Page, tmp_path: Path) -> None:
    """Fill in the form that the paused run shows."""
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=60_000)
    take_picture(page, "approval-1-paused", tmp_path)
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("A new version awaits approval")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("labels changed").first).to_be_visible()
    take_picture(page, "approval-2-form", tmp_path)
    page.locator(".p-toggle__control, .p-toggle input, [role=switch]").first.click()
    page.locator(".p-modal textarea").fill("新老师，看过了")
    take_picture(page, "approval-3-filled", tmp_path)
    page.get_by_role("button", name="Submit").click()


def paused_run() -> str:
    """The id of the run that waits."""
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            named = FlowRunFilter(name=FlowRunFilterName(like_="relabel"))
            for run in client.read_flow_runs(flow_run_filter=named):
                if is_paused(run):
                    return str(run.id)
            time.sleep(0.5)
    raise AssertionError("no run was paused")
