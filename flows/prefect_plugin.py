"""A Prefect plugin: lets `prefect deployment run distill` mean `prefect deployment run distill/distill`.

Prefect's own command wants `flow/deployment`. Its plugin entry point (`[project.entry-points."prefect.plugins"]` and
`[tool.prefect.plugins]`, both in pyproject.toml) calls `setup_environment` when Prefect is imported; for that one
command the client's look-up by name is wrapped. Every other command and process is left as Prefect made it.
"""

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from prefect.plugins import HookContext, SetupResult, register_hook

from flows.server import prefect_environment, project_root

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

    LookUp = Callable[[PrefectClient, str], Coroutine[Any, Any, DeploymentResponse]]


@register_hook
def setup_environment(*, ctx: HookContext) -> SetupResult | None:
    """Prefect calls this once a process, on import. `LABELSTILL_PORT` moves the client as it moves the server."""
    if is_deployment_run(sys.orig_argv):
        from prefect.client.orchestration import PrefectClient

        wrapped = accepting_bare_names(PrefectClient.read_deployment_by_name)
        setattr(PrefectClient, "read_deployment_by_name", wrapped)  # noqa: B010  a checker refuses the assignment
    if "LABELSTILL_PORT" not in os.environ:
        return None
    moved = {name: value for name, value in prefect_environment(project_root()).items() if name not in os.environ}
    return SetupResult(env=moved) if moved else None


def is_deployment_run(command: Sequence[str]) -> bool:
    """Whether the command line that started this process is `prefect … deployment run …`, as a script or by -m."""
    program = next((at for at, word in enumerate(command[:4]) if Path(word).stem == "prefect"), None)
    if program is None:
        return False
    words = command[program + 1 :]
    return any(pair in {("deployment", "run"), ("deployments", "run")} for pair in pairwise(words))


def accepting_bare_names(look_up: "LookUp") -> "LookUp":
    """`look_up`, which also takes a deployment's name alone where only one flow has a deployment of that name.

    For the command line only: a name that is unknown or ambiguous, and a server that does not answer, end the process
    with one line.
    """

    async def read_deployment_by_name(client: "PrefectClient", name: str) -> "DeploymentResponse":
        try:
            return await look_up(client, name if "/" in name else await full_name(client, name))
        except httpx.ConnectError:
            _end(f"No Prefect server answers at {client.api_url}. Start it with: make serve")

    return read_deployment_by_name


async def full_name(client: "PrefectClient", name: str) -> str:
    """The `flow/deployment` that the bare `name` stands for; ends the process if there is none, or are several."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    only = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
    found = await client.read_deployments(deployment_filter=only)
    names = sorted([f"{(await client.read_flow(one.flow_id)).name}/{one.name}" for one in found])
    if not names:
        _end(f"No deployment is named {name!r}. Register this project's with: make serve")
    if len(names) > 1:
        _end(f"{name!r} is the name of {len(names)} deployments, say which: {', '.join(names)}")
    return names[0]


def _end(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise SystemExit(1)
