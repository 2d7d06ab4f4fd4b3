"""`labelstill alerts`: who is told when a run fails, crashes, is late, is held back or comes out empty."""

from typing import Annotated

import typer
from rich.console import Console

console = Console()


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
    from flows.service.alerts import find_block, register_automations
    from flows.service.deployments import open_service

    with open_service().client() as client:
        found = None if block is None else find_block(client, block)
        for name, registered in register_automations(client, found).items():
            console.print(f"{name}: {registered}", markup=False, highlight=False)
    if block is None:
        console.print("Nobody was added: labelstill alerts --block slack-webhook/team", markup=False, highlight=False)
