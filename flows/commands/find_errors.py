"""`labelstill find-errors`: find labels that look wrong on this machine, without a model, a key or an upload."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.run import RUN_FILE


def find_errors_command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Only `pack`, `labelled` and `output` are needed")
    ] = (RUN_FILE),
) -> None:
    """Find labels that look wrong: students without a network predict items that they were not trained on.

    Judge some items on the review page, import the verdicts with `labelstill review import`, and run this again.
    Nothing is exported; the corrected copies of the manifests have only the labels changed.
    """
    from flows.config import load_config
    from flows.service.server import find_or_start_server

    search = load_config(config).to_search()
    find_or_start_server()
    from flows.correction import correction
    from tasks.report.summary import summarize_search

    correction(search)
    typer.echo("\n" + summarize_search(search.output, config).to_text())
