"""Compute every figure of a correction report: the content of report.json."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from tasks.correction.calibration import Flags, Values, flag_for_best_f1, resample_beliefs
from tasks.correction.decide import Decisions
from tasks.correction.gate import cross_fit
from tasks.correction.outcome import describe_agreement
from tasks.correction.overlap import ENOUGH, average_opinions, collect_opinions, rank_overlaps
from tasks.records import NEITHER, Action

_BINS = 10
_BARS = 40
_SUSPECTS = 30
_OVERLAPS = 10
_EXAMPLES = 2
"""Items shown of each label of an overlapping pair."""
_POINTS = 200
_ROUNDS = 200
_LEFT = 0.05
"""The budget curve ends when only this share of the expected wrong labels is left. Beyond it is nearly flat."""


@dataclass(frozen=True)
class Share:
    """The share `hits` / `of` with its 95 % Wilson interval. The share is None if `of` is 0."""

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bin:
    """Judged items whose P(wrong), by a model fitted without their verdict, is in [low, high)."""

    low: float
    high: float
    predicted: float | None
    wrong: Share


@dataclass(frozen=True)
class Bar:
    """All items whose P(wrong) is in [low, high)."""

    low: float
    high: float
    items: int
    flagged: int


def measure(decisions: Decisions) -> dict[str, Any]:
    """Return a dict that maps the names in report.json to the figures of these decisions."""
    judgements, verdicts, beliefs = decisions.judgements, decisions.verdicts, decisions.beliefs
    asked = decisions.person_asked.tolist()
    audited = [i for i in asked[: decisions.audited] if i in verdicts]
    held_out = predict_held_out(decisions)
    threshold = _find_threshold(decisions)
    precision, recall = _measure_flags(decisions, audited, held_out, threshold)
    without_answer = sum(
        int(np.isnan(table[asked, 0]).sum()) for table, asked in zip(decisions.teachers, decisions.asked, strict=True)
    )
    actions = Counter(decisions.action)
    return {
        "items": len(judgements.ids),
        "agreement": describe_agreement(
            int((judgements.students.argmax(1) == judgements.given).sum()), len(judgements.ids)
        ),
        "labels": judgements.labels,
        "actions": {action.value: actions[action] for action in Action},
        "flagged": int(decisions.flagged.sum()),
        "verdicts": len(verdicts),
        # items that the person was asked about; the first `audited` of them are the audit
        "reviews": len(asked),
        "audited": decisions.audited,
        "verdicts_from_before": len(verdicts) - sum(i in verdicts for i in asked),
        "teacher_calls": decisions.teacher_calls,
        "teacher_without_answer": without_answer,
        # False: too few verdicts for estimates; P(wrong) comes from the priors
        "calibrated": bool(decisions.estimates),
        "estimates": decisions.estimates,
        "threshold": threshold,
        "audited_verdicts": len(audited),
        "measured_precision": precision,
        "measured_recall": recall,
        "gate": decisions.gate,
        "gate_open": decisions.gate.open,
        "gate_why": decisions.gate.summary,
        "changes": _count_changes(decisions),
        # an item with a verdict counts as right or wrong, without one by its probability
        "expected_wrong_given": _expect_wrong(decisions),
        "expected_wrong_interval": _bound_wrong(decisions),
        "expected_wrong_left": float(decisions.gain.sum()),
        "budget": _plan_budget(decisions.gain),
        "classes": _count_classes(decisions),
        "pairs": _count_pairs(decisions),
        # pairs of labels whose definitions may overlap, most overlapping first
        "overlaps": _list_overlaps(decisions),
        "reliability": _measure_reliability(decisions, held_out),
        "histogram": _count_by_suspicion(beliefs.p_wrong, decisions.flagged),
        "suspects": _list_suspects(decisions),
    }


def predict_held_out(decisions: Decisions) -> dict[int, float]:
    """Return P(wrong) for each item with a verdict, keyed by item index, by a model fitted without its verdict."""
    parts = cross_fit(decisions.judgements, decisions.evidence, decisions.verdicts)
    return {i: float(beliefs.p_wrong[i]) for held_out, beliefs in parts for i in held_out}


def measure_share(hits: int, of: int) -> Share:
    """Return the share `hits` / `of` with its Wilson interval."""
    if of == 0:
        return Share(0, 0, None, None, None)
    interval = binomtest(hits, of).proportion_ci(method="wilson")
    return Share(hits, of, hits / of, float(interval.low), float(interval.high))


def _find_threshold(decisions: Decisions) -> float | None:
    """Return the lowest P(wrong) that is flagged, or None if P(wrong) does not decide which items are flagged.

    Only items without a verdict count, because a verdict overrules the flag. If a flagged item has a lower P(wrong)
    than an unflagged one, it was flagged because the teacher found no label right.
    """
    if not decisions.estimates:
        return None
    wrong, flagged = decisions.beliefs.p_wrong, decisions.flagged
    unjudged = np.ones(len(wrong), dtype=bool)
    unjudged[list(decisions.verdicts)] = False
    highest_unflagged = float(wrong[unjudged & ~flagged].max(initial=0.0))
    lowest_flagged = float(wrong[unjudged & flagged & (wrong > highest_unflagged)].min(initial=1.0))
    usual = float(wrong[flag_for_best_f1(wrong)].min())
    if highest_unflagged < usual <= lowest_flagged:
        return usual
    return lowest_flagged if lowest_flagged < 1 else None


def _measure_flags(
    decisions: Decisions, audited: list[int], held_out: Mapping[int, float], threshold: float | None
) -> tuple[Share | None, Share | None]:
    if threshold is None or not audited:
        return None, None
    flagged = {i for i in audited if held_out[i] >= threshold}
    wrong = {i for i in audited if decisions.verdicts[i] != decisions.judgements.given[i]}
    both = len(flagged & wrong)
    return measure_share(both, len(flagged)), measure_share(both, len(wrong))


def _find_changed(decisions: Decisions) -> Flags:
    return decisions.label != decisions.judgements.given


def _expect_wrong(decisions: Decisions) -> float:
    wrong = decisions.beliefs.p_wrong.copy()
    for item, verdict in decisions.verdicts.items():
        wrong[item] = verdict != decisions.judgements.given[item]
    return float(wrong.sum())


def _bound_wrong(decisions: Decisions) -> tuple[float, float]:
    """Return the 95 % interval of the number of wrong given labels; without enough verdicts, that of the priors."""
    count = len(decisions.judgements.ids)
    if (share := decisions.estimates.get("wrong")) is not None:
        return share.low * count, share.high * count
    drawn = resample_beliefs(decisions.judgements, decisions.evidence, decisions.verdicts, _ROUNDS, 0)
    low, high = np.quantile([float(beliefs.p_wrong.sum()) for beliefs in drawn], [0.025, 0.975]).tolist()
    return low, high


def _count_changes(decisions: Decisions) -> dict[str, float]:
    """Count the changed labels. The last three figures are expected numbers among the unreviewed changes."""
    changed, beliefs = _find_changed(decisions), decisions.beliefs
    judged = np.zeros(len(changed), dtype=bool)
    judged[list(decisions.verdicts)] = True
    unreviewed = changed & ~judged
    dropped = int((decisions.label < 0).sum())
    return {
        "by_verdict": int((changed & judged).sum()) - dropped,
        "dropped": dropped,
        "unreviewed": int(unreviewed.sum()),
        "right_to_wrong": float(beliefs.p_given[unreviewed].sum()),
        "wrong_to_right": float(beliefs.p_candidate[unreviewed].sum()),
        "wrong_to_wrong": float(beliefs.p_neither[unreviewed].sum()),
    }


def _plan_budget(gain: Values) -> tuple[tuple[int, float], ...]:
    left = np.concatenate([[gain.sum()], gain.sum() - np.cumsum(-np.sort(-gain))]).clip(min=0)
    useful = int(np.count_nonzero(left > _LEFT * left[0])) if left[0] > 0 else 0
    end = min(max(useful, 10), len(gain))
    places = np.unique(np.linspace(0, end, _POINTS + 1).round().astype(int))
    return tuple((int(i), float(left[i])) for i in places)


def _count_classes(decisions: Decisions) -> list[dict[str, Any]]:
    """Return counts for each given label, in the order of the labels."""
    changed = _find_changed(decisions)
    own = [decisions.judgements.given == number for number in range(len(decisions.judgements.labels))]
    return [
        {
            "label": label,
            "items": int(theirs.sum()),
            "flagged": int(decisions.flagged[theirs].sum()),
            "expected_wrong": float(decisions.beliefs.p_wrong[theirs].sum()),
            "changed": int(changed[theirs].sum()),
        }
        for label, theirs in zip(decisions.judgements.labels, own, strict=True)
    ]


def _count_pairs(decisions: Decisions) -> list[dict[str, Any]]:
    """Count flagged items per pair of given and proposed label. The most frequent pair comes first.

    A proposed label of None means that no label is right. `changed` counts the items that were relabelled or dropped.
    """
    labels, given = decisions.judgements.labels, decisions.judgements.given
    changed = _find_changed(decisions)
    proposed = np.where(changed, decisions.label, decisions.evidence.candidate)
    counts, changes = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for i in np.flatnonzero(decisions.flagged).tolist():
        pair = int(given[i]), int(proposed[i])
        counts[pair] += 1
        changes[pair] += bool(changed[i])
    return [
        {"given": labels[a], "proposed": None if b < 0 else labels[b], "items": n, "changed": changes[a, b]}
        for (a, b), n in counts.most_common()
    ]


def _list_overlaps(decisions: Decisions) -> list[dict[str, Any]]:
    """Return the pairs of labels that are taken for each other most, each with the ids of typical items.

    `named` says whether the pair is confused so much that its definitions should be sharpened. The items are those that
    others would most likely give the pair's other label. Audited items not judged yet are not among them.
    """
    judgements, opinions = decisions.judgements, collect_opinions(decisions)
    seen_as, _ = average_opinions(opinions)
    shown = np.ones(len(judgements.ids), dtype=bool)
    shown[list(decisions.unjudged_audit)] = False

    def find_typical(label: int, other: int) -> list[str]:
        items = np.flatnonzero(shown & (judgements.given == label))
        worst = items[np.argsort(-seen_as[items, other], kind="stable")][:_EXAMPLES]
        return [judgements.ids[i] for i in worst.tolist() if seen_as[i, other] > 0]

    return [
        {
            "first": judgements.labels[pair.first],
            "second": judgements.labels[pair.second],
            "first_as_second": pair.first_as_second,
            "second_as_first": pair.second_as_first,
            "share": pair.share,
            "least": pair.least,
            "named": pair.least >= ENOUGH,
            "examples_of_first": find_typical(pair.first, pair.second),
            "examples_of_second": find_typical(pair.second, pair.first),
        }
        for pair in rank_overlaps(judgements.given, opinions)[:_OVERLAPS]
    ]


def _measure_reliability(decisions: Decisions, held_out: Mapping[int, float]) -> tuple[Bin, ...]:
    wrong = {i: bool(decisions.verdicts[i] != decisions.judgements.given[i]) for i in held_out}
    bins: list[Bin] = []
    for place in range(_BINS):
        inside = [i for i, p in held_out.items() if min(int(p * _BINS), _BINS - 1) == place]
        mean = sum(held_out[i] for i in inside) / len(inside) if inside else None
        bins.append(
            Bin(place / _BINS, (place + 1) / _BINS, mean, measure_share(sum(wrong[i] for i in inside), len(inside)))
        )
    return tuple(bins)


def _count_by_suspicion(wrong: Values, flagged: Flags) -> tuple[Bar, ...]:
    items, edges = np.histogram(wrong, _BARS, (0, 1))
    theirs, _ = np.histogram(wrong[flagged], _BARS, (0, 1))
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), items.tolist(), theirs.tolist(), strict=True)
    return tuple(Bar(*row) for row in rows)


def _list_suspects(decisions: Decisions) -> list[dict[str, Any]]:
    """Return the items whose given labels are most likely to be wrong, without the audited items not judged yet."""
    judgements, beliefs = decisions.judgements, decisions.beliefs
    labels: tuple[str | None, ...] = (*judgements.labels, None)  # -1 is none of them
    given: list[int] = judgements.given.tolist()
    candidate: list[int] = decisions.evidence.candidate.tolist()
    hidden = decisions.unjudged_audit
    worst = [i for i in np.argsort(-beliefs.p_wrong, kind="stable").tolist() if i not in hidden][:_SUSPECTS]
    return [
        {
            "id": judgements.ids[i],
            "given": judgements.labels[given[i]],
            "candidate": labels[candidate[i]],
            "p_given": float(beliefs.p_given[i]),
            "p_candidate": float(beliefs.p_candidate[i]),
            "p_neither": float(beliefs.p_neither[i]),
            "action": decisions.action[i],
            "verdict": (labels[decisions.verdicts[i]] or NEITHER) if i in decisions.verdicts else None,
        }
        for i in worst
    ]
