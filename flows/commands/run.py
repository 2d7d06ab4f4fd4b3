"""`labelstill run`, `check` and `demo`: run all stages, check the data before a run, run a small example."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # it takes half a second, which `--help` need not wait for
    from flows.commands.check_hours import HoursRow

console = Console()
errors = Console(stderr=True)

RUN_FILE = Path("run.yaml")
"""The configuration that commands read unless they are given another."""
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The configuration; README shows one")]


def run_command(
    config: ConfigPath = RUN_FILE,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="A smoke run with N items of each set, in the folder <output>/smoke"),
    ] = None,
) -> None:
    """Run all stages on your data. Running it again continues where the last run stopped.

    With --limit, all stages run on a few items, evenly over the labels. Their answers are kept for the whole run.

    Exit codes: 0 when finished, 4 if the budget is spent, 5 if questions were sent to a batch API: run again later.
    """
    from flows.config import load_config
    from flows.service.server import find_or_start_server

    loaded = load_config(config)
    if limit is not None:
        loaded = loaded.to_smoke_run(limit)
    loaded.check_engines(keys=False)  # they may be stored in Prefect
    find_or_start_server()
    from flows.distill import distill
    from flows.run_lock import BULK_FAILURES
    from tasks.errors import AnswersPending
    from tasks.report.summary import summarize_run

    try:
        finished = distill(loaded)
    except BULK_FAILURES:
        typer.echo("\n" + summarize_run(loaded.output, loaded.emit.licence).to_text())
        raise
    if isinstance(finished, AnswersPending):  # pyright: ignore[reportUnnecessaryIsInstance]  flows/run_lock.py
        typer.echo(f"\n{finished}\nRun the same command again to take the answers: labelstill run {config}")
        raise typer.Exit(finished.exit_code)
    typer.echo("\n" + summarize_run(loaded.output, loaded.emit.licence).to_text())
    if finished is None:  # pyright: ignore[reportUnnecessaryComparison]  flows/run_lock.py
        console.print("The budget is spent. Run the same command again to continue.")
        raise typer.Exit(4)


def check_command(
    config: ConfigPath = RUN_FILE,
    show: Annotated[int, typer.Option(help="Most dropped items to list")] = 50,
) -> None:
    """Read all items without asking a model. Show dropped items with reasons and about how many requests a run sends.

    Exit codes: 0 if every set has a usable item, 1 if a set has none, 2 if a whole file is unusable.
    """
    from flows.commands.check import check
    from flows.commands.check_hours import estimate_hours
    from flows.config import load_config
    from tasks.prompts.prompter import LONG_PROMPT

    loaded = load_config(config)
    with console.status("reading") as status:
        report = check(loaded, lambda split, done, total: status.update(f"reading {split} items: {done}/{total}"))
    for split, intake in report.intakes.items():
        console.print(f"{split}: {intake.read} read, {len(intake.kept)} kept, {len(intake.dropped)} dropped")
        for warning in intake.list_warnings():
            console.print(f"[yellow]warning[/]: {split}: {escape(warning)}")
    if report.dropped:
        table = Table("item", "reason", "what was found")
        for dropped in report.dropped[:show]:
            table.add_row(escape(dropped.sample_id), dropped.reason, escape(dropped.detail))
        console.print(table)
        if len(report.dropped) > show:
            console.print(f"… and {len(report.dropped) - show} more; --show N lists more")
        console.print("dropped by reason: " + ", ".join(f"{r} {n}" for r, n in report.count_reasons().items()))
    for e in report.estimates:
        console.print(f"about {e.requests:,} requests, {e.tokens:,} prompt tokens{e.describe_price()}: {e.stage}")
        if e.fixed_chars > LONG_PROMPT:
            console.print(
                f"[yellow]warning[/]: the fixed part of this prompt has {e.fixed_chars:,} characters, and answers get "
                f"worse beyond about {LONG_PROMPT:,}; shorten the pack's glosses or examples"
            )
    if report.estimates:
        console.print(f"about {report.requests:,} requests in total; the ledger's answers are not asked again")
    for model in dict.fromkeys(spec.model for spec in loaded.engines if spec.batch):
        console.print(
            f"questions to {escape(model)} go to a batch API: a run ends with exit code 5 when it has sent them, and "
            "takes the answers when it is run again; they come within a day"
        )
    _print_hours(*estimate_hours(loaded, report))
    for newer in report.newer:
        console.print(f"[yellow]note[/]: {escape(newer)}", highlight=False)
    if report.serve_lines:
        console.print("a `vllm` engine can also run elsewhere, with this command there and `engine: server` here:")
    for line in dict.fromkeys(report.serve_lines):
        typer.echo(line)
    if not report.usable:
        errors.print("[bold red]error[/]: a set has no usable item. Fix the items above and check again.")
        raise typer.Exit(1)


def _print_hours(rows: list["HoursRow"], unknown: list[str]) -> None:
    """Print the GPU time per step and card."""
    from tasks.models.gpu_hours import CARDS

    if rows:
        console.print("GPU time with an empty ledger, an estimate that may be wrong by a factor of 2:")
        table = Table("step", "model", "cards", *(card.name for card in CARDS))
        for row in rows:
            table.add_row(row.step, escape(Path(row.model).name), row.cards, *row.cells)
        console.print(table)
    if unknown:
        console.print(f"GPU time is not estimated for models of unknown size: {escape(', '.join(unknown))}")


def demo_command() -> None:
    """Make demo data and tiny models, run all stages on them, and compare the result with the true labels."""
    from flows.service.pages import find_or_start_pages
    from flows.service.processes import ServerError
    from flows.service.server import find_or_start_server
    from tasks.models.packages import require_model_packages

    require_model_packages("`labelstill demo`")
    find_or_start_server()
    try:
        typer.echo(f"Cards, review pages and logs: {find_or_start_pages()}")
    except ServerError as error:
        typer.echo(f"The web UI will have no links to cards and review pages. {error}")
    from prefect.utilities.urls import url_for

    from flows.demo import demo
    from tasks.demo.settings import DemoConfig

    state = demo(DemoConfig(), return_state=True)
    if state.is_completed():
        typer.echo(f"\n{state.result()}")
    address = url_for("flow-run", obj_id=state.state_details.flow_run_id)
    typer.echo(f"\nThe run in the web UI: {address}")
    if not state.is_completed():
        raise typer.Exit(1)
