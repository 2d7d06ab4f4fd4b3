"""A Prefect plugin that adapts two of Prefect's commands.

`prefect deployment run distill` works like `prefect deployment run labelstill-distill/distill`. The process of a flow
run survives if the server forgets its concurrency lease.

When Prefect is imported, it calls `setup_environment` through its plugin entry point
(`[project.entry-points."prefect.plugins"]` and `[tool.prefect.plugins]` in pyproject.toml). `setup_environment` wraps
one function per command and leaves all other commands unchanged.
"""

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from prefect.plugins import HookContext, SetupResult, register_hook

from flows.service.server import choose_environment, read_user_profile

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient, SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

    LookUp = Callable[[PrefectClient, str], Coroutine[Any, Any, DeploymentResponse]]
    Renewal = Callable[[SyncPrefectClient, UUID, float], object]


@register_hook
def setup_environment(*, ctx: HookContext) -> SetupResult | None:
    """Adapt the command that this process runs. Prefect calls this once per process, when it is imported.

    Return the settings that the `labelstill` command would use, for another port (LABELSTILL_PORT), a server in the
    user's Prefect profile or a password.
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
    named = {"LABELSTILL_PORT", "PREFECT_SERVER_API_AUTH_STRING"} & os.environ.keys()
    if not named and ("PREFECT_API_URL" in os.environ or not read_user_profile()):
        return None  # pyproject.toml says all
    moved = choose_environment()
    return SetupResult(env=moved) if moved else None


def get_prefect_arguments(command: Sequence[str]) -> Sequence[str]:
    """Return the arguments after `prefect`, if `command` runs Prefect as a script or with -m.

    For `python -m prefect.engine` return ["engine"]. For other programs return an empty sequence.
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

    Use it for the command line only: if the name is unknown or ambiguous, or the server does not answer, it prints one
    line and ends the process.
    """

    async def read_deployment_by_name(client: "PrefectClient", name: str) -> "DeploymentResponse":
        try:
            return await look_up(client, name if "/" in name else await find_full_name(client, name))
        except httpx.ConnectError:
            _exit(f"No Prefect server answers at {client.api_url}. Start it with: make serve")

    return read_deployment_by_name


def survive_lost_lease(renew: "Renewal") -> "Renewal":
    """Wrap `renew` so that a failure only causes a warning.

    Prefect 3.9.1 ends a run when its concurrency lease cannot be renewed, for instance because the server was down for
    five minutes. Here two runs at the same time do no harm, because the second waits for the output folder.
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


async def find_full_name(client: "PrefectClient", name: str) -> str:
    """Return the full name `flow/deployment` of the deployment `name`. End the process unless exactly one exists."""
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
