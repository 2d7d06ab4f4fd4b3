"""Progress in the web UI keeps moving, and an unavailable Prefect API does not disturb the work."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

import flows.ui
from flows.ui import Progress, show_in_ui
from tests.conftest import PrefectServer, free_port


@dataclass(frozen=True)
class Shown:
    """A progress artifact as the server has it."""

    percent: float
    words: str
    updated: str


def read_progress(server: PrefectServer, run: UUID) -> list[Shown]:
    body = {"artifacts": {"flow_run_id": {"any_": [str(run)]}, "type": {"any_": ["progress"]}}}
    found = httpx.post(f"{server.api_url}/artifacts/filter", json=body).raise_for_status().json()
    return [Shown(a["data"], a["description"], a["updated"]) for a in found]


def wait_for_progress(server: PrefectServer, wanted: Callable[[Shown], bool]) -> Shown:
    """The run's progress, once it is as `wanted`; after a minute as it is."""
    deadline = time.monotonic() + 60
    while not (found := read_progress(server, get_run_id())) or not wanted(found[0]):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return found[0]


def get_run_id() -> UUID:
    from prefect.context import get_run_context

    return get_run_context().flow_run.id  # pyright: ignore


def test_progress_moves_by_itself_and_shows_what_is_known(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.ui, "_TICK_SECONDS", 0.2)
    monkeypatch.setattr(flows.ui, "_IDLE_SECONDS", 0.4)
    spent = [0.0]

    @flow
    def work() -> tuple[Shown, Shown]:
        with Progress("pseudo_labels", "teacher labels the pool", 40, lambda: spent[0]) as progress:
            progress.advance(10, dropped=3)
            spent[0] = 1.25
            first = wait_for_progress(prefect_server, lambda one: one.percent == 25 and "cost 1.2500" in one.words)
            # nothing gets done
            return first, wait_for_progress(prefect_server, lambda one: one.updated > first.updated)

    first, second = work()
    assert first.percent == second.percent == 25.0
    for part in ("pseudo_labels: teacher labels the pool: 10/40", "/s", "left", "3 dropped", "cost 1.2500", "so far"):
        assert part in second.words


def test_the_last_count_is_shown_and_nothing_moves_after_an_error(prefect_server: PrefectServer) -> None:
    runs: list[UUID] = []

    @flow
    def work(fails: bool) -> None:
        runs.append(get_run_id())
        with Progress("ocr", "read", 4) as progress:
            progress.advance(3)
            if fails:
                raise ValueError("stop")
            progress.advance()

    work(False)
    with pytest.raises(ValueError, match="stop"):
        work(True)
    (whole,), (broken,) = (read_progress(prefect_server, run) for run in runs)
    assert (whole.percent, broken.percent) == (100.0, 75.0)
    assert "read: 3/4" in broken.words
    time.sleep(0.3)
    assert read_progress(prefect_server, runs[1]) == [broken]


def test_an_unavailable_api_is_logged_once_and_retried(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flows.ui, "_TICK_SECONDS", 0.1)
    monkeypatch.setattr(flows.ui, "_RETRY_SECONDS", (0.01, None))

    @flow
    def work() -> object:
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
            with Progress("ocr", "read", 40) as progress:
                progress.advance(3)
                time.sleep(1.0)
            return show_in_ui("a table", lambda: httpx.get("http://127.0.0.1:9").text)

    with caplog.at_level(logging.WARNING):
        assert work() is None
    said = [r.getMessage() for r in caplog.records if "does not show" in r.getMessage()]
    assert [line.split(":")[0] for line in said] == [
        "the web UI does not show ocr-progress for now",
        "the web UI does not show a table",
    ]


def test_the_api_is_called_rarely(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import SyncPrefectClient

    calls, took = list[float](), list[float]()
    real = SyncPrefectClient.update_artifact

    def counted(self: SyncPrefectClient, *args: object) -> None:
        calls.append(time.monotonic())
        real(self, *args)  # pyright: ignore

    monkeypatch.setattr(SyncPrefectClient, "update_artifact", counted)
    monkeypatch.setattr(flows.ui, "_TICK_SECONDS", 0.5)

    @flow
    def work() -> None:
        began = time.monotonic()
        with Progress("ocr", "read", 10_000) as progress:
            for _ in range(1_000):
                progress.advance()
                time.sleep(0.0011)
        took.append(time.monotonic() - began)

    work()
    assert 2 <= len(calls) <= 2 + took[0] / 0.5
    assert all(later - earlier >= 0.45 for earlier, later in pairwise(calls[:-1]))
