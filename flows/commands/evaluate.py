"""`labelstill evaluate` and `labelstill compare`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.run import RUN_FILE


def evaluate_command(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.yaml", help="A run's configuration, with `evaluation`: held-out items with labels"
        ),
    ] = RUN_FILE,
) -> None:
    """Train students with several seeds on each variant of a run's set, and measure them on held-out items.

    Without `student`, or with one of kind probe, that takes seconds and no model.
    """
    from flows.config import load_config
    from flows.service.server import find_or_start_server
    from tasks.models.packages import require_model_packages
    from tasks.students.settings import StudentSpec

    loaded = load_config(config).make_evaluate_config()
    if isinstance(loaded.student, StudentSpec):
        require_model_packages("`labelstill evaluate` with `student: {kind: lora}`")
    find_or_start_server()
    from flows.evaluate import STAGE, evaluate
    from tasks.evaluation.results import is_transductive
    from tasks.evaluation.scores import Scored
    from tasks.evaluation.table import describe, make_report
    from tasks.storage.rows import read_rows

    evaluate(loaded)
    rows = read_rows(loaded.output / STAGE / "kept.parquet", Scored)
    typer.echo(describe(make_report(rows, transductive=is_transductive(loaded.output))))


def compare_command(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's folder: `output` in its configuration")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The other run's folder")],
) -> None:
    """Compare the students of two evaluated runs on the held-out items that both answered."""
    from tasks.errors import ConfigError
    from tasks.evaluation.results import is_transductive
    from tasks.evaluation.scores import Scored
    from tasks.evaluation.table import TRANSDUCTIVE, compare
    from tasks.storage.rows import read_rows

    sides: list[list[Scored]] = []
    for run in (run_a, run_b):
        file = run / "evaluate" / "kept.parquet"
        if not file.exists():
            raise ConfigError(f"{file}: this run has not been evaluated; run `labelstill evaluate CONFIG.yaml` first")
        sides.append(read_rows(file, Scored))
        if is_transductive(run):
            typer.echo(f"{run}: {TRANSDUCTIVE}")
    try:
        typer.echo(compare(str(run_a), sides[0], str(run_b), sides[1]))
    except ValueError as error:
        raise ConfigError(f"{run_a} and {run_b}: {error}; evaluate both on the same held-out items") from error
