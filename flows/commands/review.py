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
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who judged, if FILE does not say; default: your user name")
    ] = None,
) -> None:
    """Import the verdicts in FILE on items that have not changed. The next run with this configuration uses them."""
    from tasks.records import content_digest
    from tasks.review.label_studio import is_export, read_export
    from tasks.review.queue import settle_cases
    from tasks.review.verdicts import import_verdicts, read_answers, read_store

    cases, store = _read_cases(run)
    answers = read_export(file) if is_export(file) else read_answers(file)
    labels = {c.sample_id: c.labels for c in cases}
    contents = {c.sample_id: content_digest(c) for c in cases}
    givens = {c.sample_id: c.given for c in cases if not c.blind}
    done = import_verdicts(store, file, labels, contents, by or getpass.getuser(), givens=givens, answers=answers)
    typer.echo(
        f"{len(done.new)} new, {len(done.changed)} changed, {len(done.same)} as before, {len(done.withdrawn)} "
        "taken back"
    )
    for name in done.changed[:20]:
        typer.echo(f"changed: {name}")
    for fault in done.skipped:
        typer.echo(f"not imported: {fault}")
    found = read_store(store)
    for name in done.disagreed:
        said = ", ".join(f"{v.by}: {v.verdict}" for v in found[name])
        typer.echo(f"disagreement, to be judged again: {name} ({said})")
    judged = settle_cases(cases, store.parent).verdicts
    typer.echo(f"{len(judged)} of {len(cases)} judged: {store}")
    typer.echo("To apply them, run `labelstill find-errors` or `labelstill run` again")


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
    from tasks.review.queue import mark_disagreed, settle_cases

    if to.suffix != ".json":
        raise ConfigError(f"--to {to}: the file's name must end in .json")
    cases, store = _read_cases(run)
    settled = settle_cases(cases, store.parent)
    cases = mark_disagreed(cases, settled)
    if only_open:
        cases = [c for c in cases if c.sample_id not in settled.verdicts]
    with console.status(f"writing {escape(str(to))}"):
        configuration = write_tasks(cases, to)
    typer.echo(f"{len(cases)} tasks: {to}; labelling configuration: {configuration}")


@app.command()
def page(
    run: Run,
    link: Annotated[bool, typer.Option("--link", help="Link to the images instead of embedding them")] = False,
) -> None:
    """Rewrite the review page; it then shows all imported verdicts."""
    from tasks.review.queue import PAGE, write_queue

    cases, store = _read_cases(run)
    target = store.with_name(PAGE)
    title = f"Review: {run.resolve().name}"
    with console.status(f"writing {escape(str(target))}"):
        write_queue(cases, store.parent, title=title, inline=not link)
    typer.echo(f"{len(cases)} questions, {target.stat().st_size / (1 << 20):.1f} MB: {target}")


@app.command("list")
def list_(run: Run) -> None:
    """List the items to review, in the order of the queue, with people's verdicts."""
    from tasks.review.queue import settle_cases
    from tasks.review.verdicts import read_store

    cases, store = _read_cases(run)
    found = read_store(store)
    settled = settle_cases(cases, store.parent)
    table = Table("item", "given", "candidate", "gain", "verdict", "by", "at")
    for case in cases:
        verdicts = found.get(case.sample_id, ())
        said = "\n".join(v.verdict or "" for v in verdicts)
        if case.sample_id in settled.outdated:
            said += " (not used: the item has changed since)"
        elif case.sample_id in settled.disagreed:
            said += "\n(not used: people disagree)"
        shown = ("audit", "audit", "–") if case.blind else (case.given, case.candidate or "–", f"{case.gain:.4f}")
        columns = (case.sample_id, *shown, said, "\n".join(v.by for v in verdicts), "\n".join(v.at for v in verdicts))
        table.add_row(*(escape(column) for column in columns))
    console.print(table)
    typer.echo(
        f"{len(settled.verdicts)} of {len(cases)} judged, {len(settled.outdated)} verdicts no longer used, "
        f"{len(settled.disagreed)} disagreements: {store}"
    )


def _read_cases(run: Path) -> "tuple[list[ReviewCase], Path]":
    """Return the run's review cases, and the path of its verdicts file."""
    from tasks.review.queue import STORE, read_queue

    folder = run / "review"
    return read_queue(folder), folder / STORE
