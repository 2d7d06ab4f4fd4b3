"""The `labelstill` command: add its subcommands, apply Prefect's settings, and print errors."""

import typer
from rich.console import Console
from rich.markup import escape

from flows.commands.card import card_command
from flows.commands.diff import diff_command
from flows.commands.evaluate import compare_command, evaluate_command
from flows.commands.find_errors import find_errors_command
from flows.commands.init import init_command
from flows.commands.ledger import app as ledger_app
from flows.commands.relabel import relabel_command
from flows.commands.review import app as review_app
from flows.commands.run import check_command, demo_command, run_command
from flows.commands.service import alerts_command, serve_command, stop_command
from flows.service.server import apply_environment
from tasks.errors import LabelstillError
from tasks.models.packages import explain_missing_package

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a small noisy labelled set and a large unlabelled pool of image+text items into a better training set.",
)
app.command("init")(init_command)
app.command("run")(run_command)
app.command("check")(check_command)
app.command("find-errors")(find_errors_command)
app.command("demo")(demo_command)
app.command("relabel")(relabel_command)
app.command("evaluate")(evaluate_command)
app.command("compare")(compare_command)
app.command("card")(card_command)
app.command("diff")(diff_command)
app.add_typer(ledger_app, name="ledger")
app.add_typer(review_app, name="review")
app.command("serve")(serve_command)
app.command("stop")(stop_command)
app.command("alerts")(alerts_command)


def main() -> None:
    """Run the command. If it raises LabelstillError, print the error as one line and exit with its `exit_code`.

    In an environment without the packages that run models, do the same if one of them cannot be imported.
    """
    # Before anything imports Prefect, which reads its settings at import.
    apply_environment()
    try:
        app()
    except LabelstillError as error:
        raise _print_error(error) from error
    except ModuleNotFoundError as error:
        if (explained := explain_missing_package(error)) is None:
            raise
        raise _print_error(explained) from error


def _print_error(error: LabelstillError) -> SystemExit:
    Console(stderr=True).print(f"[bold red]error[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
    return SystemExit(error.exit_code)


if __name__ == "__main__":
    main()
