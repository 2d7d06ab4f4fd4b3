"""`labelstill correct`: decide about given labels from out-of-fold probabilities, without a pack, model or Prefect."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.errors import ConfigError, JudgementError

if TYPE_CHECKING:
    from tasks.correction.judgements import Ints

_AS_IN_A_RUN = "as in `labelstill run`"
Probabilities = Annotated[
    list[Path],
    typer.Option(
        help='Out-of-fold probabilities: JSON Lines {"id", "given", "probabilities": {label: p}}; one file per model '
        "or repeat"
    ),
]


def correct_command(
    probabilities: Probabilities,
    out: Annotated[Path, typer.Option(help="File to write the decisions to, one line per item in input order")],
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher's probabilities in the same form, used for suspicious items")
    ] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(help='People\'s verdicts: JSON Lines {"id", "verdict": label or "neither", "by": name}'),
    ] = None,
    reviews: Annotated[int, typer.Option(min=0, help="Most items to look up in --verdicts")] = 0,
    audit: Annotated[
        int | None,
        typer.Option(min=0, help="How many of --reviews form the random audit sample", show_default=_AS_IN_A_RUN),
    ] = None,
    teacher_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Largest share of items to ask the teacher about", show_default=_AS_IN_A_RUN),
    ] = None,
    target_precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="Flag items for this precision, not for the best F1")
    ] = None,
    gate_level: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Labels change without review only if the lower bound of audited wins exceeds this share",
            show_default=_AS_IN_A_RUN,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for the audit sample")] = 0,
) -> None:
    """Decide about given labels from any model's out-of-fold probabilities, and print a summary as JSON.

    Without reviews, no label changes. With reviews, labels without a verdict change only if the audit allows it.
    """
    # numpy, scipy and scikit-learn take seconds to import, which would slow down `labelstill --help`.
    from tasks.correction.decide import correct
    from tasks.correction.judgements import index_verdicts, read_probabilities, read_teacher
    from tasks.correction.outcome import list_rows, summarise
    from tasks.correction.settings import CorrectionSettings
    from tasks.review.verdicts import read_verdicts
    from tasks.storage.json_lines import write_json_lines

    if reviews and verdicts is None:
        raise ConfigError("--reviews needs --verdicts, the file in which the answers are looked up")
    options = {
        "review_budget": reviews, "audit": audit, "teacher_share": teacher_share,
        "target_precision": target_precision, "gate_level": gate_level,
    }  # fmt: skip
    settings = CorrectionSettings.model_validate({k: v for k, v in options.items() if v is not None})
    judgements = read_probabilities(probabilities)
    table = read_teacher(teacher, judgements) if teacher else None
    answers: dict[int, int] = {}
    if verdicts is not None:
        found = read_verdicts(verdicts, dict.fromkeys(judgements.ids, judgements.labels))
        if found.skipped and not (found.verdicts or found.disagreed):
            raise JudgementError(f"{verdicts}, {found.skipped[0]}; no verdict in the file can be used")
        for fault in (*found.skipped, *(f"item {i}: reviewers disagree" for i in found.disagreed)):
            typer.echo(f"{verdicts}: not used: {fault}", err=True)
        answers = index_verdicts(judgements, found.verdicts)

    def look_up(items: "Ints") -> dict[int, int]:
        return {item: answers[item] for item in items.tolist() if item in answers}

    ask_teacher = None if table is None else lambda items: table[items]
    decisions = correct(judgements, settings, ask_teacher, look_up, seed=seed)
    write_json_lines(out, list_rows(decisions))
    print(json.dumps(summarise(decisions), ensure_ascii=False))
