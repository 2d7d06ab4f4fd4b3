"""The web UI in headless Chromium: a run is a graph of four subflows, with progress and tables."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser import open_browser
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config

SUBFLOWS = ("rationales", "pseudo-labels", "correction", "emit")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run_id(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    from flows.distill import distill

    state = distill(small_config(tmp_path_factory.mktemp("ui"), items=40), return_state=True)
    assert state.is_completed()
    return str(state.state_details.flow_run_id)


@contextmanager
def open_page() -> Iterator[Page]:
    """A page of a headless Chromium; without one the test is skipped, loudly."""
    with open_browser() as browser:
        yield browser.new_page(viewport={"width": 1500, "height": 1000})


@pytest.fixture
def page(run_id: str) -> Iterator[Page]:
    with open_page() as page:
        yield page


def take_picture(page: Page, name: str, tmp_path: Path) -> Path:
    folder = Path(os.environ.get("LABELSTILL_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    page.screenshot(path=file)
    return file


def test_run_page_shows_four_subflows(page: Page, run_id: str, prefect_server: PrefectServer, tmp_path: Path) -> None:
    ui = prefect_server.api_url.removesuffix("/api")
    page.goto(f"{ui}/runs/flow-run/{run_id}")
    expect(page.get_by_text("distill: demo").first).to_be_visible(timeout=60_000)
    page.wait_for_timeout(4000)  # the graph draws itself onto a canvas, without an element to wait for
    assert take_picture(page, "run", tmp_path).stat().st_size > 20_000
    page.get_by_role("tab", name=re.compile("subflow", re.I)).or_(page.get_by_text("Subflow Runs")).first.click()
    for name in SUBFLOWS:
        expect(page.get_by_text(f"{name}: demo").first).to_be_visible(timeout=30_000)
    take_picture(page, "subflows", tmp_path)


def test_artifacts_show_progress_and_tables(
    page: Page, run_id: str, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    ui = prefect_server.api_url.removesuffix("/api")
    subflows = httpx.post(
        f"{prefect_server.api_url}/flow_runs/filter",
        json={"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}},
    ).json()
    correction = next(run["id"] for run in subflows if run["name"].startswith("correction"))
    page.goto(f"{ui}/runs/flow-run/{correction}")
    page.get_by_role("tab", name=re.compile("artifact", re.I)).or_(page.get_by_text("Artifacts")).first.click()
    for text in ("correction-counts", "labels-changed", "correction-progress"):
        expect(page.get_by_text(text, exact=False).first).to_be_visible(timeout=30_000)
    take_picture(page, "artifacts", tmp_path)


def test_graph_of_the_run_holds_the_four_subflows(run_id: str, prefect_server: PrefectServer) -> None:
    graph = httpx.get(f"{prefect_server.api_url}/flow_runs/{run_id}/graph-v2").raise_for_status().json()
    labels = [node["label"] for _, node in graph["nodes"] if node["kind"] == "flow-run"]
    assert sorted(labels) == sorted(f"labelstill-{name} / {name}: demo" for name in SUBFLOWS)
    assert any(artifact["type"] == "markdown" for artifact in graph["artifacts"])
