"""A server on SQLite records a changed automation in its own event loop instead of waiting for itself for ever."""

import asyncio
import logging
import sys

import pytest
from prefect.plugins import HookContext
from prefect.server.events.models import automations

import flows.service.prefect_plugin as plugin
from flows.service.prefect_plugin import run_in_this_loop


def test_a_change_waits_for_the_lock_without_blocking_the_loop() -> None:
    noted: list[str] = []

    async def serve() -> None:
        lock = asyncio.Lock()

        async def note() -> None:
            async with lock:
                noted.append("changed")

        async with lock:  # as the server's own look at its automations, every five seconds
            run_in_this_loop(note())
            await asyncio.sleep(0)
            assert noted == []
        await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(serve(), 10))
    assert noted == ["changed"]


@pytest.mark.parametrize(
    ("command", "patched"),
    [("python -m prefect server start", True), ("prefect server start", True), ("prefect worker start", False)],
)
def test_only_the_server_is_patched(command: str, patched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automations, "run_coro_as_sync", automations.run_coro_as_sync)  # put back afterwards
    monkeypatch.setattr(sys, "orig_argv", command.split())
    context = HookContext(prefect_version="3.7.7", api_url=None, logger_factory=logging.getLogger)
    plugin.setup_environment(ctx=context)
    assert (automations.run_coro_as_sync is run_in_this_loop) is patched  # pyright: ignore
