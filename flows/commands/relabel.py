"""`labelstill relabel`: update a set now, publish a version that was held back, or go back to the one before."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.run import RUN_FILE


def relabel_command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="The run's configuration; README shows one")
    ] = RUN_FILE,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish the version that was held back, exactly as it is")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Go back to the version that was published before; no model is asked")
    ] = False,
) -> None:
    """Update a set: ask only about new and changed items, then publish the new version or hold it back.

    Exit codes: 0 if the version is published or nothing has changed, 3 if it is held back, 4 if the budget is spent, 5
    if questions were sent to a batch API: run again later.
    """
    from flows.config import RelabelConfig, load_config
    from flows.service.server import find_or_start_server
    from tasks.dataset.drift import RelabelOutcome, RelabelState
    from tasks.errors import AnswersPending

    loaded = load_config(config, RelabelConfig)
    find_or_start_server()
    from flows.relabel import relabel

    changes = {"publish": publish or loaded.publish, "undo": undo or loaded.undo}
    state = relabel(loaded.model_copy(update=changes))
    if isinstance(state, AnswersPending):
        typer.echo(f"{state}\nRun the same command again to take the answers: labelstill relabel {config}")
        raise typer.Exit(state.exit_code)
    assert isinstance(state, RelabelState)
    typer.echo("; ".join((state.outcome, *state.why)))
    if undo:
        typer.echo(f"To publish the later version again: labelstill relabel {config} --publish")
        return
    if state.outcome is RelabelOutcome.BUDGET_SPENT:
        raise typer.Exit(4)
    still_held_back = state.outcome is RelabelOutcome.UNCHANGED and state.why
    if state.outcome is RelabelOutcome.HELD_BACK or still_held_back:
        typer.echo(f"To look at it: labelstill diff {loaded.output} {loaded.output / 'candidate'}")
        typer.echo(f"To publish it: labelstill relabel {config} --publish")
        raise typer.Exit(3)
