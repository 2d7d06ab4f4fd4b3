"""`labelstill find-errors`: find labels that look wrong on this machine, without a model, a key or an upload."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.run import RUN_FILE
from tasks.errors import ConfigError, JudgementError

if TYPE_CHECKING:
    from tasks.correction.judgements import Ints, Judgements

_AS_IN_A_RUN = "as in `labelstill run`"
_PANEL = "With --probabilities"


def _option(text: str, default: str | None = None, **limits: Any) -> Any:
    return typer.Option(help=text, show_default=default or False, rich_help_panel=_PANEL, **limits)


def find_errors_command(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG.yaml", help="Only `pack`, `labelled` and `output` are needed", show_default=str(RUN_FILE)
        ),
    ] = None,
    probabilities: Annotated[
        list[Path] | None,
        typer.Option(
            help='Use these out-of-fold probabilities instead of CONFIG.yaml: JSON Lines {"id", "given", '
            '"probabilities": {label: p}}; one file per model or repeat'
        ),
    ] = None,
    out: Annotated[Path | None, _option("File to write the decisions to, one line per item in input order")] = None,
    teacher: Annotated[
        Path | None, _option("The teacher's probabilities in the same form, used for suspicious items")
    ] = None,
    verdicts: Annotated[
        Path | None,
        _option('People\'s verdicts: JSON Lines {"id", "verdict": label or "neither", "by": name}. Without them, the '
                "review queue and its page are written to the folder `review` beside --out"),
    ] = None,
    reviews: Annotated[
        int | None,
        _option("Number of items in the review queue; with --verdicts, most items to look up there",
                default="100; with --verdicts, all of them", min=0),
    ] = None,
    audit: Annotated[
        int | None,
        _option("How many of --reviews form the random audit sample", default="a third of them", min=0),
    ] = None,
    teacher_share: Annotated[
        float | None, _option("Largest share of items to ask the teacher about", default=_AS_IN_A_RUN, min=0, max=1)
    ] = None,
    target_precision: Annotated[
        float | None, _option("Flag items for this precision, not for the best F1", min=0, max=1)
    ] = None,
    gate_level: Annotated[
        float | None,
        _option("Labels change without review only if the lower bound of audited wins exceeds this share",
                default=_AS_IN_A_RUN, min=0, max=1),
    ] = None,
    seed: Annotated[int | None, _option("Random seed for the audit sample", default="0")] = None,
    images: Annotated[
        Path | None, _option('Folder of the files that "image" and "video" name in the first --probabilities')
    ] = None,
) -> None:  # fmt: skip
    """Find labels that look wrong: students without a network predict items that they were not trained on.

    Judge some items on the review page, import the verdicts with `labelstill review import`, and run this again.
    Nothing is exported; the corrected copies of the manifests have only the labels changed.

    With --probabilities, any model's out-of-fold probabilities are used instead, without a pack or a configuration, and
    a summary is printed as JSON. Run this again with --verdicts to apply the verdicts that the page saved.
    """
    settings = {
        "review_budget": reviews, "audit": audit, "teacher_share": teacher_share,
        "target_precision": target_precision, "gate_level": gate_level,
    }  # fmt: skip
    if not probabilities:
        others = {"out": out, "teacher": teacher, "verdicts": verdicts, "seed": seed, "images": images}
        for name, value in {"reviews": reviews, **settings, **others}.items():
            if value is not None:
                raise ConfigError(f"--{name.replace('_', '-')} needs --probabilities; with CONFIG.yaml, leave it out")
        _search(config or RUN_FILE)
    elif config is not None:
        raise ConfigError(f"{config}: --probabilities is used instead of a configuration; give only one of them")
    elif out is None:
        raise ConfigError("--probabilities needs --out, the file to write the decisions to")
    else:
        given = {name: value for name, value in settings.items() if value is not None}
        _decide(probabilities, out, teacher, verdicts, given, seed or 0, images)


def _search(config: Path) -> None:
    from flows.config import load_config
    from flows.service.server import find_or_start_server

    search = load_config(config).to_search()
    find_or_start_server()
    from flows.correction import correction
    from tasks.report.summary import summarize_search

    correction(search)
    typer.echo("\n" + summarize_search(search.output, config).to_text())


def _decide(
    probabilities: Sequence[Path],
    out: Path,
    teacher: Path | None,
    verdicts: Path | None,
    given: dict[str, Any],
    seed: int,
    images: Path | None,
) -> None:
    """Write the decisions and print their summary; without verdicts, also write the review queue and its page."""
    # numpy, scipy and scikit-learn take seconds to import, which would slow down `labelstill --help`.
    from tasks.correction.decide import Adjudicator, correct
    from tasks.correction.judgements import read_probabilities, read_teacher
    from tasks.correction.listed_items import choose_listed_cases
    from tasks.correction.outcome import list_rows, summarise
    from tasks.correction.settings import CorrectionSettings
    from tasks.review.queue import PAGE, write_queue
    from tasks.storage.json_lines import write_json_lines

    settings = CorrectionSettings.model_validate(given)
    judgements = read_probabilities(probabilities)
    table = read_teacher(teacher, judgements) if teacher else None
    answers = _read_answers(verdicts, judgements) if verdicts else {}

    def look_up(items: "Ints") -> dict[int, int]:
        return {item: answers[item] for item in items.tolist() if item in answers}

    # --reviews limits how many verdicts are looked up. Without it all are used, like those imported into a run.
    limited = bool(verdicts) and "review_budget" in given
    teachers = [] if table is None else [Adjudicator(lambda items: table[items])]
    decisions = correct(judgements, settings, teachers, look_up, None if limited else answers, seed)
    folder = out.parent / "review"
    cases = [] if verdicts else choose_listed_cases(probabilities[0], images, folder / "frames", decisions, table)
    summary = summarise(decisions)
    if not limited:
        summary["reviews"] = len(decisions.verdicts)
    write_json_lines(out, list_rows(decisions))
    if not verdicts:
        write_queue(cases, folder, title=f"Review: {probabilities[0].name}")
        typer.echo(f"{len(cases)} items to review: {folder / PAGE}; run this again with --verdicts", err=True)
    print(json.dumps(summary, ensure_ascii=False))


def _read_answers(file: Path, judgements: "Judgements") -> dict[int, int]:
    """Map items to the label indices of the verdicts in `file`, and print which verdicts are not used."""
    from tasks.correction.judgements import index_verdicts
    from tasks.review.verdicts import read_verdicts

    found = read_verdicts(file, dict.fromkeys(judgements.ids, judgements.labels))
    if found.skipped and not (found.verdicts or found.disagreed):
        raise JudgementError(f"{file}, {found.skipped[0]}; no verdict in the file can be used")
    for fault in (*found.skipped, *(f"item {i}: reviewers disagree" for i in found.disagreed)):
        typer.echo(f"{file}: not used: {fault}", err=True)
    return index_verdicts(judgements, found.verdicts)
