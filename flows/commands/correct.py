"""`labelstill correct`: out-of-fold probabilities in, decisions out; no pack, no model, no Prefect."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.errors import ConfigError

if TYPE_CHECKING:
    from tasks.correction.judgements import Ints

_AS_IN_A_RUN = "as in a run: `correction` in flows/README.md"
Probabilities = Annotated[
    list[Path],
    typer.Option(help='Out-of-fold, {"id", "given", "probabilities": {label: p}} a line; one file a model or repeat'),
]


def correct_command(
    probabilities: Probabilities,
    out: Annotated[Path, typer.Option(help="The decisions, a line per item in input order")],
    teacher: Annotated[Path | None, typer.Option(help="The teacher's, in the same form; used where suspicious")] = None,
    verdicts: Annotated[
        Path | None, typer.Option(help='A person\'s, {"id", "verdict": label | "neither"} a line')
    ] = None,
    reviews: Annotated[int, typer.Option(min=0, help="At most this many items are looked up in --verdicts")] = 0,
    audit: Annotated[
        int | None, typer.Option(min=0, help="Of these, the sample for calibration and gate", show_default=_AS_IN_A_RUN)
    ] = None,
    teacher_share: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="At most this share of the items is put before the teacher", show_default=_AS_IN_A_RUN
        ),
    ] = None,
    target_precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="Flag for this precision instead of for the best F1")
    ] = None,
    gate_level: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Labels change unreviewed only above this bound of audited wins",
            show_default=_AS_IN_A_RUN,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the audit's sample")] = 0,
) -> None:
    """Judge given labels by out-of-fold probabilities from anywhere; a summary as JSON on standard output.

    No label changes without a person's verdict unless audited verdicts open the gate; without reviews none does.
    """
    # numpy, scipy and scikit-learn take seconds to import, which `labelstill --help` need not wait for
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
    found = read_verdicts(verdicts, dict.fromkeys(judgements.ids, judgements.labels), strict=True) if verdicts else {}
    answers = index_verdicts(judgements, found)

    def look_up(items: "Ints") -> dict[int, int]:
        return {item: answers[item] for item in items.tolist() if item in answers}

    ask_teacher = None if table is None else lambda items: table[items]
    decisions = correct(judgements, settings, ask_teacher, look_up, seed=seed)
    write_json_lines(out, list_rows(decisions))
    print(json.dumps(summarise(decisions), ensure_ascii=False))
