"""`labelstill correct`: out-of-fold probabilities in, decisions out; no pack, no model, no Prefect."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import orjson
import typer

from tasks.correction import Decisions, Policy, correct
from tasks.errors import ConfigError
from tasks.judgements import Ints, read_probabilities, read_teacher, read_verdicts
from tasks.stages import write_bytes

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
    if reviews and verdicts is None:
        raise ConfigError("--reviews needs --verdicts, the file in which the answers are looked up")
    judgements = read_probabilities(probabilities)
    told = read_teacher(teacher, judgements) if teacher else None
    answers = read_verdicts(verdicts, judgements) if verdicts else {}
    policy = Policy(
        reviews=reviews, audit=audit, teacher_share=teacher_share, gate_level=gate_level,
        target_precision=target_precision, seed=seed,
    )  # fmt: skip

    def look_up(items: Ints) -> dict[int, int]:
        return {item: answers[item] for item in items.tolist() if item in answers}

    decisions = correct(judgements, policy, None if told is None else lambda items: told[items], look_up)
    write_bytes(out, b"".join(_lines(decisions)))
    print(json.dumps(summary_of(decisions), ensure_ascii=False))


def summary_of(decisions: Decisions) -> dict[str, object]:
    """Counts, gate and estimates of a correction, for JSON."""
    gate, flagged = decisions.gate, decisions.flagged
    actions = Counter(decisions.action)
    unreviewed = sum(
        action == "relabel" and item not in decisions.verdicts for item, action in enumerate(decisions.action)
    )
    return {
        "items": len(decisions.action),
        "flagged": int(flagged.sum()),
        "reviews": len(decisions.person_asked),
        "verdicts": len(decisions.verdicts),
        "teacher_calls": len(decisions.teacher_asked),
        **{action.value: actions[action] for action in sorted(actions)},
        "relabelled_unreviewed": unreviewed,
        "gate": "open" if gate.open else "closed",
        "gate_why": gate.summary,
        "wins": int(gate.wins),
        "losses": int(gate.losses),
        "wilson_lower": round(gate.lower, 4),
        **{
            name: {"value": round(e.value, 4), "low": round(e.low, 4), "high": round(e.high, 4)}
            for name, e in decisions.estimates.items()
        },
    }


def _lines(decisions: Decisions) -> Iterator[bytes]:
    judgements, beliefs = decisions.judgements, decisions.beliefs
    given, label = judgements.given.tolist(), decisions.label.tolist()
    figures = zip(
        beliefs.p_given.tolist(), beliefs.p_candidate.tolist(), beliefs.p_neither.tolist(),
        beliefs.p_wrong.tolist(), strict=True,
    )  # fmt: skip
    for item, (p_given, p_candidate, p_neither, p_wrong) in enumerate(figures):
        yield (
            orjson.dumps(
                {
                    "id": judgements.ids[item],
                    "given": judgements.labels[given[item]],
                    "flagged": bool(decisions.flagged[item]),
                    "reviewed": item in decisions.verdicts,
                    "action": decisions.action[item],
                    "label": None if label[item] < 0 else judgements.labels[label[item]],
                    "p_given": p_given,
                    "p_candidate": p_candidate,
                    "p_neither": p_neither,
                    "suspicion": p_wrong,
                }
            )
            + b"\n"
        )
