"""The `labelstill` command."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.commands.alerts import alerts_command
from flows.commands.card import card_command
from flows.commands.correct import correct_command
from flows.commands.corrections import app as corrections_app
from flows.commands.diff import diff_command
from flows.commands.evaluate import compare_command, evaluate_command
from flows.commands.ledger import app as ledger_app
from flows.commands.relabel import relabel_command
from flows.commands.review import app as review_app
from flows.service.server import apply_environment
from tasks.errors import LabelstillError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a small noisy labelled set and a large unlabelled pool of image+text items into a better training set.",
)
app.add_typer(ledger_app, name="ledger")
app.add_typer(corrections_app, name="corrections")
app.add_typer(review_app, name="review")
app.command("correct")(correct_command)
app.command("card")(card_command)
app.command("evaluate")(evaluate_command)
app.command("compare")(compare_command)
app.command("diff")(diff_command)
app.command("alerts")(alerts_command)
app.command("relabel")(relabel_command)
console = Console()
errors = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The configuration; README shows one")]


def main() -> None:
    """Entry point: an error of ours is one line on the terminal and exit code 2, never a traceback."""
    # Must come before anything imports Prefect, which reads its settings at import.
    apply_environment()
    try:
        app()
    except LabelstillError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from error


@app.command()
def run(config: ConfigPath) -> None:
    """Run the whole way on your own data; a rerun goes on where the last one stopped."""
    from flows.config import load_config
    from flows.service.server import find_or_start_server
    from tasks.models.engines.engine import check_engine

    loaded = load_config(config)
    for spec in (loaded.generator, loaded.teacher):
        if spec is not None and loaded.runner == "threads":  # else the nodes say what they lack
            check_engine(spec)
    find_or_start_server()
    from flows.distill import distill
    from tasks.report.summary import run_summary

    finished = distill(loaded)
    console.print(run_summary(loaded.output), markup=False)
    if finished is None:  # pyright: ignore[reportUnnecessaryComparison]  flows/run_lock.py
        console.print("The budget is spent; run the same command again to go on.")
        raise typer.Exit(4)


@app.command()
def check(
    config: ConfigPath,
    show: Annotated[int, typer.Option(help="At most this many refused items are listed")] = 50,
) -> None:
    """Read everything, ask no model: what would be dropped and why, and about how much would be asked.

    Exit code 0 if every set has a usable item, 1 if one has none, 2 if a file as a whole is unusable.
    """
    from flows.commands.check import check as check_config
    from flows.config import load_config
    from tasks.prompts.prompter import LONG_PROMPT

    with console.status("reading") as status:
        report = check_config(
            load_config(config), lambda split, done, total: status.update(f"reading {split} items: {done}/{total}")
        )
    for split, intake in report.intakes.items():
        console.print(f"{split}: {intake.read} read, {len(intake.kept)} kept, {len(intake.dropped)} dropped")
    if report.dropped:
        table = Table("item", "reason", "what was found")
        for dropped in report.dropped[:show]:
            table.add_row(escape(dropped.sample_id), dropped.reason, escape(dropped.detail))
        console.print(table)
        if len(report.dropped) > show:
            console.print(f"… and {len(report.dropped) - show} more; --show N lists more")
        console.print("dropped by reason: " + ", ".join(f"{r} {n}" for r, n in report.reasons().items()))
    for e in report.estimates:
        console.print(f"about {e.requests:,} requests, {e.tokens:,} prompt tokens: {e.stage}")
        if e.fixed_chars > LONG_PROMPT:
            console.print(
                f"[yellow]warning[/]: the pack's own part of that prompt has {e.fixed_chars:,} characters; answers get "
                f"worse beyond about {LONG_PROMPT:,}: shorten glosses or examples"
            )
    if not report.usable:
        errors.print("[bold red]error[/]: a set has no usable item; mend the items above and check again")
        raise typer.Exit(1)


@app.command()
def demo() -> None:
    """Make demo data and tiny models, run the whole way on them in the Prefect service, compare with the truth."""
    from flows.service.serve import demo_in_service

    raise typer.Exit(demo_in_service({}))


@app.command()
def serve() -> None:
    """Keep the Prefect server (with its web UI), the deployments and a worker for each pool up until Ctrl-C."""
    from flows.service.serve import serve as serve_forever

    serve_forever()


@app.command()
def stop() -> None:
    """Stop the project's workers, with the runs that they execute, and its Prefect server."""
    from flows.service.serve import stop as stop_service

    console.print("stopped" if stop_service() else "no server or worker of this project was running")


if __name__ == "__main__":
    main()
