"""`labelstill serve`, `stop` and `alerts`: the project's Prefect server and workers, and who hears of trouble."""

from typing import Annotated

import typer
from rich.console import Console

console = Console()


def serve_command() -> None:
    """Keep the Prefect server (with its web UI), the deployments and a worker for each pool up until Ctrl-C."""
    from flows.service.serve import serve

    serve()


def stop_command() -> None:
    """Stop the project's workers, with the runs that they execute, its page server and its Prefect server."""
    from flows.service.serve import stop

    console.print("stopped" if stop() else "no server or worker of this project was running")


def alerts_command(
    block: Annotated[
        str | None,
        typer.Option(metavar="TYPE/NAME", help="A saved notification or webhook block, e.g. slack-webhook/team"),
    ] = None,
) -> None:
    """Send alerts to a block (saved in the web UI, under Blocks); without one, only add what is missing.

    Failed, crashed and late runs of deployments are told, versions held back and empty results of any run. Runs whose
    heartbeats are missing are marked Crashed, with or without a block. Running it again changes nothing.
    """
    from flows.service.server import find_or_start_server

    api_url = find_or_start_server()
    from prefect.client.orchestration import SyncPrefectClient

    from flows.service.alerts import apply_automations, find_block

    with SyncPrefectClient(api_url) as client:
        found = None if block is None else find_block(client, block)
        for name, applied in apply_automations(client, found).items():
            typer.echo(f"{name}: {applied}")
    if block is None:
        typer.echo("Nobody was added: labelstill alerts --block slack-webhook/team")
