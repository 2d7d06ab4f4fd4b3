"""`labelstill correct`: out-of-fold probabilities in, decisions out; no pack, no model, no Prefect."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.errors import ConfigError

if TYPE_CHECKING:
    from tasks.correction.judgements import Ints

Probabilities = Annotated[
    list[Path],
    typer.Option(help='Out-of-fold, {"id", "given", "probabilities": {label: p}} a line; one file a model or repeat'),
]


def correct_command(
    probabilities: Probabilities,
    out: Annotated[Path, typer.Option(help="The decisions, one line an item in input order")],
    teacher: Annotated[Path | None, typer.Option(help="The teacher's, in the same form; used where suspicious")] = None,
    verdicts: Annotated[
        Path | None, typer.Option(help='A person\'s, {"id", "verdict": label | "neither"} a line')
    ] = None,
    reviews: Annotated[int, typer.Option(min=0, help="At most this many items are looked up in --verdicts")] = 0,
    audit: Annotated[int, typer.Option(min=0, help="Of these, the sample for calibration and gate")] = 100,
    teacher_share: Annotated[
        float, typer.Option(min=0, max=1, help="At most this share of the items is put before the teacher")
    ] = 0.15,
    target_precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="Flag for this precision instead of for the best F1")
    ] = None,
    gate_level: Annotated[
        float, typer.Option(min=0, max=1, help="Labels change unreviewed only above this bound of audited wins")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the audit's sample")] = 0,
) -> None:
    """Judge given labels by out-of-fold probabilities from anywhere; a summary as JSON on standard output.

    No label changes without a person's verdict unless audited verdicts open the gate; without reviews none does.
    """
    # numpy, scipy and scikit-learn take seconds to import, which `labelstill --help` need not wait for
    from tasks.correction.decide import Policy, correct
    from tasks.correction.decision_lines import decision_lines, summary_of
    from tasks.correction.judgements import read_probabilities, read_teacher, read_verdicts
    from tasks.storage.files import write_bytes

    if reviews and verdicts is None:
        raise ConfigError("--reviews needs --verdicts, the file in which the answers are looked up")
    judgements = read_probabilities(probabilities)
    told = read_teacher(teacher, judgements) if teacher else None
    answers = read_verdicts(verdicts, judgements) if verdicts else {}
    policy = Policy(
        reviews=reviews, audit=audit, teacher_share=teacher_share, gate_level=gate_level,
        target_precision=target_precision, seed=seed,
    )  # fmt: skip

    def look_up(items: "Ints") -> dict[int, int]:
        return {item: answers[item] for item in items.tolist() if item in answers}

    decisions = correct(judgements, policy, None if told is None else lambda items: told[items], look_up)
    write_bytes(out, b"".join(decision_lines(decisions)))
    print(json.dumps(summary_of(decisions), ensure_ascii=False))
