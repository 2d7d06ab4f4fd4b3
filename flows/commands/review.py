"""`labelstill review`: list and export a run's review queue, and import people's verdicts."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from tasks.records import ReviewCase

app = typer.Typer(no_args_is_help=True, help="List and export a run's doubtful labels, and import verdicts on them.")
console = Console()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder: `output` in its configuration")]


@app.command("import")
def import_(
    run: Run,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The page's verdicts.jsonl, or Label Studio's JSON export")
    ],
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who judged; default: your user name")] = None,
) -> None:
    """Import the verdicts in FILE. If one is invalid, import none. The next run with this configuration uses them."""
    from tasks.records import content_digest
    from tasks.review.label_studio import is_export, read_export
    from tasks.review.verdicts import import_verdicts, read_answers, read_store

    cases, store = _read_cases(run)
    answers = list(read_export(file).values()) if is_export(file) else read_answers(file)
    labels = {c.sample_id: c.labels for c in cases}
    contents = {c.sample_id: content_digest(c) for c in cases}
    givens = {c.sample_id: c.given for c in cases}
    done = import_verdicts(store, file, labels, contents, by or getpass.getuser(), givens=givens, answers=answers)
    typer.echo(
        f"{len(done.new)} new, {len(done.changed)} changed, {len(done.same)} as before, {len(done.withdrawn)} "
        "taken back"
    )
    for name in done.changed[:20]:
        typer.echo(f"changed: {name}")
    judged = contents.keys() & read_store(store).keys()
    typer.echo(f"{len(judged)} of {len(cases)} judged: {store}; run the configuration again to apply them")


@app.command()
def export(
    run: Run,
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE.json", help="File for the tasks; the configuration goes to FILE.xml")
    ],
    only_open: Annotated[bool, typer.Option("--open", help="Only items without a verdict")] = False,
) -> None:
    """Write the review queue as Label Studio tasks, with a labelling configuration for the project."""
    from tasks.errors import ConfigError
    from tasks.review.label_studio import write_tasks

    if to.suffix != ".json":
        raise ConfigError(f"--to {to}: the file's name must end in .json")
    cases, store = _read_cases(run)
    if only_open:
        judged, _ = _read_verdicts(cases, store)
        cases = [c for c in cases if c.sample_id not in judged]
    with console.status(f"writing {escape(str(to))}"):
        configuration = write_tasks(cases, to)
    typer.echo(f"{len(cases)} tasks: {to}; labelling configuration: {configuration}")


@app.command()
def page(
    run: Run,
    link: Annotated[bool, typer.Option("--link", help="Link to the images instead of embedding them")] = False,
) -> None:
    """Rewrite the review page; it then shows all imported verdicts."""
    from tasks.review.page import write_review_page
    from tasks.review.queue import PAGE

    cases, store = _read_cases(run)
    target = store.with_name(PAGE)
    title = f"Review: {run.resolve().name}"
    with console.status(f"writing {escape(str(target))}"):
        write_review_page(cases, target, title=title, verdicts=_read_verdicts(cases, store)[0], inline=not link)
    typer.echo(f"{len(cases)} questions, {target.stat().st_size / (1 << 20):.1f} MB: {target}")


@app.command("list")
def list_(run: Run) -> None:
    """List the items to review, in the order of the queue, with people's verdicts."""
    from tasks.review.verdicts import read_store

    cases, store = _read_cases(run)
    found = read_store(store)
    held, stale = _read_verdicts(cases, store)
    table = Table("item", "given", "candidate", "gain", "verdict", "by", "at")
    for case in cases:
        v = found.get(case.sample_id)
        verdict = ("", "", "") if v is None else (v.verdict or "", v.by, v.at)
        if case.sample_id in stale:
            verdict = (f"{verdict[0]} (not used: the item has changed since)", *verdict[1:])
        columns = (case.sample_id, case.given, case.candidate or "–", f"{case.gain:.4f}", *verdict)
        table.add_row(*(escape(column) for column in columns))
    console.print(table)
    typer.echo(f"{len(held)} of {len(cases)} judged, {len(stale)} verdicts no longer used: {store}")


def _read_cases(run: Path) -> "tuple[list[ReviewCase], Path]":
    """Return the run's review cases, and the path of its verdicts file."""
    from tasks.review.queue import STORE, read_queue

    folder = run / "review"
    return read_queue(folder), folder / STORE


def _read_verdicts(cases: "list[ReviewCase]", store: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return a dict that maps sample id to valid verdict, and the ids of items that changed after their verdict."""
    from tasks.records import content_digest
    from tasks.review.verdicts import read_store, split_valid

    return split_valid(
        read_store(store), {c.sample_id: c.labels for c in cases}, {c.sample_id: content_digest(c) for c in cases}
    )
