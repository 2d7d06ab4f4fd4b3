"""Decisions as `labelstill correct` writes them: a line of JSON an item, and a summary."""

from collections import Counter
from collections.abc import Iterator

import orjson

from tasks.correction.decide import Decisions


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
        "wins": gate.wins,
        "losses": gate.losses,
        "wilson_lower": round(gate.lower, 4),
        **{
            name: {"value": round(e.value, 4), "low": round(e.low, 4), "high": round(e.high, 4)}
            for name, e in decisions.estimates.items()
        },
    }


def decision_lines(decisions: Decisions) -> Iterator[bytes]:
    """One JSON object an item, in order; `suspicion` is the probability that the given label is wrong.

    The probabilities are the models', also where a verdict has settled the item.
    """
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
