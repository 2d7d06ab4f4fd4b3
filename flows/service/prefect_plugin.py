"""A Prefect plugin: three of Prefect's own commands, fixed for this project.

`prefect deployment run distill` may mean `prefect deployment run distill/distill`; a flow's process goes on when the
server forgets its place under the deployment's concurrency limit; and the server survives a changed automation.
Prefect's plugin entry point (`[project.entry-points."prefect.plugins"]` and `[tool.prefect.plugins]`, both in
pyproject.toml) calls `setup_environment` when Prefect is imported; for these commands one function is wrapped. Every
other command and process is left as Prefect made it.
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
    """Prefect calls this once a process, on import. `LABELSTILL_PORT` moves the client as it moves the server."""
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
    """What follows `prefect`, run as a script or by -m, in the command line that started this process.

    Of `python -m prefect.engine` it is ["engine"]; of another program nothing.
    """
    for at, word in enumerate(command[:4]):
        name = Path(word).name
        if name in {"prefect", "prefect.engine"}:
            return [*name.split(".")[1:], *command[at + 1 :]]
    return []


def is_deployment_run(words: Sequence[str]) -> bool:
    """Whether the command is `prefect … deployment run …`."""
    return any(pair in {("deployment", "run"), ("deployments", "run")} for pair in pairwise(words))


def is_flow_process(words: Sequence[str]) -> bool:
    """Whether the command executes a flow run: a worker's `python -m prefect.engine` or `prefect flow-run execute`."""
    return list(words[:1]) == ["engine"] or list(words[:2]) == ["flow-run", "execute"]


def accept_bare_names(look_up: "LookUp") -> "LookUp":
    """`look_up`, which also takes a deployment's name alone where only one flow has a deployment of that name.

    For the command line only: a name that is unknown or ambiguous, and a server that does not answer, end the process
    with one line.
    """

    async def read_deployment_by_name(client: "PrefectClient", name: str) -> "DeploymentResponse":
        try:
            return await look_up(client, name if "/" in name else await find_full_name(client, name))
        except httpx.ConnectError:
            _exit(f"No Prefect server answers at {client.api_url}. Start it with: make serve")

    return read_deployment_by_name


def survive_lost_lease(renew: "Renewal") -> "Renewal":
    """`renew`, whose failure is a warning.

    Prefect 3.7.7 ends a run whose place under its deployment's concurrency limit can't be renewed, as when the server
    was away for five minutes. Two runs at once do no harm here: one waits for the other's output folder.
    """

    def renew_concurrency_lease(client: "SyncPrefectClient", lease_id: "UUID", lease_duration: float) -> object:
        try:
            return renew(client, lease_id, lease_duration)
        except Exception as error:
            from prefect.logging import get_logger

            get_logger("labelstill").warning(
                "the server does not renew this run's place under its concurrency limit, the run goes on: %s", error
            )
            return None

    return renew_concurrency_lease


_RUNNING_TASKS: set[asyncio.Task[None]] = set()
"""A loop keeps no hold of its tasks."""


def run_in_this_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, by which a server on SQLite notes a changed automation, in its event loop, not in another thread.

    Prefect 3.7.7 has the loop wait for that thread, which waits for a lock that the loop holds every five seconds: the
    whole server hung for good at one of some dozens of changes (PrefectHQ/prefect#23055).
    """
    task = asyncio.get_running_loop().create_task(work)
    _RUNNING_TASKS.add(task)
    task.add_done_callback(_RUNNING_TASKS.discard)


async def find_full_name(client: "PrefectClient", name: str) -> str:
    """The `flow/deployment` that the bare `name` stands for; ends the process if there is none, or are several."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    only = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
    found = await client.read_deployments(deployment_filter=only)
    names = sorted([f"{(await client.read_flow(one.flow_id)).name}/{one.name}" for one in found])
    if not names:
        _exit(f"No deployment is named {name!r}. Register this project's with: make serve")
    if len(names) > 1:
        _exit(f"{name!r} is the name of {len(names)} deployments, say which: {', '.join(names)}")
    return names[0]


def _exit(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise SystemExit(1)
