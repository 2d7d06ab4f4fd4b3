"""A Prefect plugin that adapts three of Prefect's commands.

`prefect deployment run distill` works like `prefect deployment run distill/distill`; a flow's process survives when the
server forgets its concurrency lease; and the server survives a changed automation. Prefect calls `setup_environment`
through its plugin entry point when it is imported (`[project.entry-points."prefect.plugins"]` and
`[tool.prefect.plugins]` in pyproject.toml). It wraps one function per command and leaves all other commands unchanged.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from prefect.plugins import HookContext, SetupResult, register_hook

from flows.service.server import get_project_root, read_prefect_environment

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient, SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

    LookUp = Callable[[PrefectClient, str], Coroutine[Any, Any, DeploymentResponse]]
    Renewal = Callable[[SyncPrefectClient, UUID, float], object]


@register_hook
def setup_environment(*, ctx: HookContext) -> SetupResult | None:
    """Adapt the command that this process runs; Prefect calls this once per process, at import.

    Returns Prefect's settings if `LABELSTILL_PORT` is set, so that the client uses the same port as the server.
    """
    words = get_prefect_arguments(sys.orig_argv)
    if is_deployment_run(words):
        from prefect.client.orchestration import PrefectClient

        wrapped = accept_bare_names(PrefectClient.read_deployment_by_name)
        setattr(PrefectClient, "read_deployment_by_name", wrapped)  # noqa: B010  a checker refuses the assignment
    elif is_flow_process(words):
        from prefect.client.orchestration import SyncPrefectClient

        outliving = survive_lost_lease(SyncPrefectClient.renew_concurrency_lease)
        setattr(SyncPrefectClient, "renew_concurrency_lease", outliving)  # noqa: B010
    elif list(words[:2]) == ["server", "start"]:
        from prefect.server.events.models import automations

        setattr(automations, "run_coro_as_sync", run_in_this_loop)  # noqa: B010
    if "LABELSTILL_PORT" not in os.environ:
        return None
    moved = {
        name: value for name, value in read_prefect_environment(get_project_root()).items() if name not in os.environ
    }
    return SetupResult(env=moved) if moved else None


def get_prefect_arguments(command: Sequence[str]) -> Sequence[str]:
    """Return the arguments after `prefect` in a command line that runs it as a script or with -m.

    For `python -m prefect.engine` return ["engine"], and for other programs nothing.
    """
    for at, word in enumerate(command[:4]):
        name = Path(word).name
        if name in {"prefect", "prefect.engine"}:
            return [*name.split(".")[1:], *command[at + 1 :]]
    return []


def is_deployment_run(words: Sequence[str]) -> bool:
    """Return whether the command is `prefect … deployment run …`."""
    return any(pair in {("deployment", "run"), ("deployments", "run")} for pair in pairwise(words))


def is_flow_process(words: Sequence[str]) -> bool:
    """Return whether the command executes a flow run: `python -m prefect.engine` or `prefect flow-run execute`."""
    return list(words[:1]) == ["engine"] or list(words[:2]) == ["flow-run", "execute"]


def accept_bare_names(look_up: "LookUp") -> "LookUp":
    """Wrap `look_up` so that it also accepts a deployment's name without its flow, if the name is unique.

    For the command line only: an unknown or ambiguous name, or a server that does not answer, ends the process with a
    one-line message.
    """

    async def read_deployment_by_name(client: "PrefectClient", name: str) -> "DeploymentResponse":
        try:
            return await look_up(client, name if "/" in name else await find_full_name(client, name))
        except httpx.ConnectError:
            _exit(f"No Prefect server answers at {client.api_url}. Start it with: make serve")

    return read_deployment_by_name


def survive_lost_lease(renew: "Renewal") -> "Renewal":
    """Wrap `renew` so that its failure is only a warning.

    Prefect 3.7.7 ends a run when its concurrency lease cannot be renewed, for instance because the server was down for
    five minutes. Two runs at the same time do no harm here: the second waits for the output folder.
    """

    def renew_concurrency_lease(client: "SyncPrefectClient", lease_id: "UUID", lease_duration: float) -> object:
        try:
            return renew(client, lease_id, lease_duration)
        except Exception as error:
            from prefect.logging import get_logger

            get_logger("labelstill").warning(
                "the server does not renew this run's concurrency lease; the run continues: %s", error
            )
            return None

    return renew_concurrency_lease


_RUNNING_TASKS: set[asyncio.Task[None]] = set()
"""Keeps the tasks alive, because an event loop holds only weak references to them."""


def run_in_this_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, which records a changed automation, in the server's event loop instead of in another thread.

    In Prefect 3.7.7 with SQLite the loop waits for that thread, which can wait for a lock that the loop holds: after a
    few dozen changes the whole server hung for good (PrefectHQ/prefect#23055).
    """
    task = asyncio.get_running_loop().create_task(work)
    _RUNNING_TASKS.add(task)
    task.add_done_callback(_RUNNING_TASKS.discard)


async def find_full_name(client: "PrefectClient", name: str) -> str:
    """Return the full name `flow/deployment` of the deployment `name`; end the process unless there is exactly one."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    only = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
    found = await client.read_deployments(deployment_filter=only)
    names = sorted([f"{(await client.read_flow(one.flow_id)).name}/{one.name}" for one in found])
    if not names:
        _exit(f"No deployment is named {name!r}. Register this project's deployments with: make serve")
    if len(names) > 1:
        _exit(f"{name!r} is the name of {len(names)} deployments. Give the full name: {', '.join(names)}")
    return names[0]


def _exit(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise SystemExit(1)
