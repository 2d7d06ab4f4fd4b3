"""`labelstill evaluate` and `labelstill compare`."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate_command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="A run's configuration, with `evaluation` (and `evaluate`)")
    ],
) -> None:
    """Train the student on each variant of the set that a run made, with several seeds, and measure it held out."""
    from flows.config import load_config
    from flows.service.server import find_or_start_server

    loaded = load_config(config).make_evaluate_config()
    find_or_start_server()
    from flows.evaluate import STAGE, evaluate
    from tasks.evaluation.scores import Scored
    from tasks.evaluation.table import describe, make_report
    from tasks.storage.rows import read_rows

    evaluate(loaded)
    typer.echo(describe(make_report(read_rows(loaded.output / STAGE / "kept.parquet", Scored))))


def compare_command(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's folder: `output` of its configuration")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The other's")],
) -> None:
    """Whose student is better, and where: two evaluated runs on the held-out items that both answered."""
    from tasks.errors import ConfigError
    from tasks.evaluation.scores import Scored
    from tasks.evaluation.table import compare
    from tasks.storage.rows import read_rows

    sides: list[list[Scored]] = []
    for run in (run_a, run_b):
        file = run / "evaluate" / "kept.parquet"
        if not file.exists():
            raise ConfigError(f"{file}: no evaluation; run `labelstill evaluate CONFIG.yaml` for this run first")
        sides.append(read_rows(file, Scored))
    try:
        typer.echo(compare(str(run_a), sides[0], str(run_b), sides[1]))
    except ValueError as error:
        raise ConfigError(f"{run_a} and {run_b}: {error}") from error
