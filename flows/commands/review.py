"""`labelstill review`: a person's verdicts in, the questions out, as a page or as Label Studio tasks."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from tasks.records import ReviewCase

app = typer.Typer(no_args_is_help=True, help="Labels in doubt: the questions of a run, and what people said.")
console = Console()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder: `output` of its configuration")]


@app.command("import")
def import_(
    run: Run,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The page's verdicts.jsonl, or Label Studio's JSON export")
    ],
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who judged; default: the user who imports")] = None,
) -> None:
    """Take over verdicts, all or none. The next run of the configuration applies them."""
    from tasks.records import content_digest
    from tasks.review.label_studio import is_export, read_export
    from tasks.review.verdicts import import_verdicts, read_answers, read_store

    cases, store = _queue(run)
    answers = list(read_export(file).values()) if is_export(file) else read_answers(file)
    labels = {c.sample_id: c.labels for c in cases}
    contents = {c.sample_id: content_digest(c) for c in cases}
    givens = {c.sample_id: c.given for c in cases}
    done = import_verdicts(store, file, labels, contents, by or getpass.getuser(), givens=givens, answers=answers)
    typer.echo(
        f"{len(done.new)} new, {len(done.changed)} changed, {len(done.same)} as before, "
        f"{len(done.withdrawn)} taken back"
    )
    for name in done.changed[:20]:
        typer.echo(f"changed: {name}")
    judged = contents.keys() & read_store(store).keys()
    typer.echo(f"{len(judged)} of {len(cases)} judged: {store}; run the configuration again to apply them")


@app.command()
def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="FILE.json", help="The tasks; FILE.xml goes beside it")],
    only_open: Annotated[bool, typer.Option("--open", help="Only items without a verdict")] = False,
) -> None:
    """Write the questions as Label Studio tasks, with the labelling configuration for their project."""
    from tasks.errors import ConfigError
    from tasks.review.label_studio import write_tasks

    if to.suffix != ".json":
        raise ConfigError(f"--to {to}: must end in .json")
    cases, store = _queue(run)
    if only_open:
        judged, _ = _verdicts(cases, store)
        cases = [c for c in cases if c.sample_id not in judged]
    with console.status(f"writing {escape(str(to))}"):
        configuration = write_tasks(cases, to)
    typer.echo(f"{len(cases)} tasks: {to}; labelling configuration: {configuration}")


@app.command()
def page(
    run: Run,
    link: Annotated[bool, typer.Option("--link", help="Link images instead of taking them into the page")] = False,
) -> None:
    """Write the review page again, with the verdicts there are."""
    from tasks.review.page import write_review_page
    from tasks.review.queue import PAGE

    cases, store = _queue(run)
    target = store.with_name(PAGE)
    title = f"Review: {run.resolve().name}"
    with console.status(f"writing {escape(str(target))}"):
        write_review_page(cases, target, title=title, verdicts=_verdicts(cases, store)[0], inline=not link)
    typer.echo(f"{len(cases)} questions, {target.stat().st_size / (1 << 20):.1f} MB: {target}")


@app.command("list")
def list_(run: Run) -> None:
    """The questions in their order, and what people said."""
    from tasks.review.verdicts import read_store

    cases, store = _queue(run)
    found = read_store(store)
    held, stale = _verdicts(cases, store)
    table = Table("item", "given", "candidate", "gain", "verdict", "by", "at")
    for case in cases:
        v = found.get(case.sample_id)
        said = ("", "", "") if v is None else (v.verdict or "", v.by, v.at)
        if case.sample_id in stale:
            said = (f"{said[0]} (item changed since: not used)", *said[1:])
        columns = (case.sample_id, case.given, case.candidate or "–", f"{case.gain:.4f}", *said)
        table.add_row(*(escape(column) for column in columns))
    console.print(table)
    typer.echo(f"{len(held)} of {len(cases)} judged, {len(stale)} verdicts no longer used: {store}")


def _queue(run: Path) -> "tuple[list[ReviewCase], Path]":
    """The run's cases, and the path of its store of verdicts."""
    from tasks.review.queue import STORE, read_queue

    folder = run / "review"
    return read_queue(folder), folder / STORE


def _verdicts(cases: "list[ReviewCase]", store: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """The stored verdicts that hold, by sample id, and the ids of those whose item has changed since."""
    from tasks.records import content_digest
    from tasks.review.verdicts import read_store, split_valid

    return split_valid(
        read_store(store), {c.sample_id: c.labels for c in cases}, {c.sample_id: content_digest(c) for c in cases}
    )
