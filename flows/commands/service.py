"""`labelstill serve`, `stop` and `alerts`: run the project's Prefect server and workers, and set up alerts."""

from typing import Annotated

import typer
from rich.console import Console

console = Console()


def serve_command() -> None:
    """Run the Prefect server, its web UI and a worker for each work pool until Ctrl-C is pressed."""
    from flows.service.serve import serve

    serve()


def stop_command() -> None:
    """Stop the project's workers with their runs, its page server and its Prefect server."""
    from flows.service.serve import stop

    console.print("stopped" if stop() else "no server or worker of this project was running")


def alerts_command(
    block: Annotated[
        str | None,
        typer.Option(metavar="TYPE/NAME", help="A saved notification or webhook block, e.g. slack-webhook/team"),
    ] = None,
) -> None:
    """Send alerts to a block that is saved in the web UI under Blocks; without --block, only add missing automations.

    Alerts are sent for failed, crashed and late runs of deployments, and for held-back versions and empty results of
    any run. Runs without heartbeats are marked Crashed, with or without a block. Repeating the command is harmless.
    """
    from flows.service.server import find_or_start_server

    api_url = find_or_start_server()
    from flows.api import open_client
    from flows.service.alerts import apply_automations, find_block

    with open_client(api_url) as client:
        found = None if block is None else find_block(client, block)
        for name, applied in apply_automations(client, found).items():
            typer.echo(f"{name}: {applied}")
    if block is None:
        typer.echo("No receiver was set. To set one: labelstill alerts --block slack-webhook/team")
