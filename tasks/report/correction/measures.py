"""A correction's decisions, counted and measured for its report."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.correction.calibration import Flags, Values, calibrate, flag_for_best_f1
from tasks.correction.decide import Decisions
from tasks.correction.gate import wilson_interval
from tasks.records import NEITHER, Action
from tasks.report.correction.figures import Bar, Bin, Changes, ClassFigures, Figures, Pair, Share, Suspect

_PARTS = 5
"""A verdict is compared with a model that was fitted without it, a fifth of them at a time, as for the gate."""
_BINS = 10
_BARS = 40
_SUSPECTS = 30
_POINTS = 200
_LEFT = 0.05
"""The budget curve ends where this share of the wrong labels expected now is left: beyond it, nothing is to be seen."""


def figures_of(
    decisions: Decisions,
    unheard: Mapping[int, float],
    *,
    title: str,
    costs: Mapping[str, float],
    excluded: Mapping[str, str],
    repeats: int,
) -> Figures:
    """All that the report says; see `write_report` in report.py. `unheard` is what `held_out` gives."""
    judgements, verdicts, wrong = decisions.judgements, decisions.verdicts, decisions.beliefs.p_wrong
    asked = decisions.person_asked.tolist()
    audited = [i for i in asked[: decisions.audited] if i in verdicts]
    threshold = _threshold(decisions)
    precision, recall = _measured(decisions, audited, unheard, threshold)
    silent = 0
    if decisions.teacher is not None:
        silent = int(np.isnan(decisions.teacher[decisions.teacher_asked, 0]).sum())
    actions = Counter(decisions.action)
    return Figures(
        title=title,
        items=len(judgements.ids),
        labels=judgements.labels,
        repeats=repeats,
        actions={action.value: actions[action] for action in Action},
        flagged=int(decisions.flagged.sum()),
        verdicts=len(verdicts),
        reviews=len(asked),
        audited=decisions.audited,
        verdicts_from_before=len(verdicts) - sum(i in verdicts for i in asked),
        teacher_calls=len(decisions.teacher_asked),
        teacher_without_answer=silent,
        costs=dict(costs),
        calibrated=bool(decisions.estimates),
        estimates=decisions.estimates,
        threshold=threshold,
        audited_verdicts=len(audited),
        measured_precision=precision,
        measured_recall=recall,
        gate=decisions.gate,
        gate_open=decisions.gate.open,
        changes=_changes(decisions),
        expected_wrong_given=_expected_wrong(decisions),
        expected_wrong_left=float(decisions.gain.sum()),
        budget=_budget(decisions.gain),
        classes=_classes(decisions),
        pairs=_pairs(decisions),
        reliability=_reliability(decisions, unheard),
        histogram=_histogram(wrong, decisions.flagged),
        suspects=_suspects(decisions),
        excluded=dict(excluded),
    )


def held_out(decisions: Decisions) -> dict[int, float]:
    """P(wrong) of each item with a verdict, by a model fitted to the other four fifths of the verdicts."""
    verdicts, found = decisions.verdicts, dict[int, float]()
    items = sorted(verdicts)
    for part in range(_PARTS):
        theirs = items[part::_PARTS]
        others = sorted(set(items) - set(theirs))
        p_wrong = (
            calibrate(decisions.judgements, decisions.evidence, verdicts, others).beliefs(decisions.evidence).p_wrong
        )
        found |= {i: float(p_wrong[i]) for i in theirs}
    return found


def share(hits: int, of: int) -> Share:
    """The share with its Wilson interval."""
    if of == 0:
        return Share(0, 0, None, None, None)
    return Share(hits, of, hits / of, *wilson_interval(hits, of))


def _threshold(decisions: Decisions) -> float | None:
    """Read off the items without a verdict, which would overrule the flag.

    Of their flags, those below an item that has none are not by P(wrong): there the teacher found no label right.
    """
    if not decisions.estimates:
        return None
    wrong, flagged = decisions.beliefs.p_wrong, decisions.flagged
    unheard = np.ones(len(wrong), dtype=bool)
    unheard[list(decisions.verdicts)] = False
    highest = float(wrong[unheard & ~flagged].max(initial=0.0))
    by_figure = float(wrong[unheard & flagged & (wrong > highest)].min(initial=1.0))
    usual = float(wrong[flag_for_best_f1(wrong)].min())
    if highest < usual <= by_figure:
        return usual
    return by_figure if by_figure < 1 else None


def _measured(
    decisions: Decisions, audited: list[int], unheard: Mapping[int, float], threshold: float | None
) -> tuple[Share | None, Share | None]:
    if threshold is None or not audited:
        return None, None
    flagged = {i for i in audited if unheard[i] >= threshold}
    wrong = {i for i in audited if decisions.verdicts[i] != decisions.judgements.given[i]}
    both = len(flagged & wrong)
    return share(both, len(flagged)), share(both, len(wrong))


def _changed(decisions: Decisions) -> Flags:
    return decisions.label != decisions.judgements.given


def _expected_wrong(decisions: Decisions) -> float:
    wrong = decisions.beliefs.p_wrong.copy()
    for item, verdict in decisions.verdicts.items():
        wrong[item] = verdict != decisions.judgements.given[item]
    return float(wrong.sum())


def _changes(decisions: Decisions) -> Changes:
    changed, beliefs = _changed(decisions), decisions.beliefs
    heard = np.zeros(len(changed), dtype=bool)
    heard[list(decisions.verdicts)] = True
    alone = changed & ~heard
    dropped = int((decisions.label < 0).sum())
    return Changes(
        by_verdict=int((changed & heard).sum()) - dropped,
        dropped=dropped,
        unreviewed=int(alone.sum()),
        right_to_wrong=float(beliefs.p_given[alone].sum()),
        wrong_to_right=float(beliefs.p_candidate[alone].sum()),
        wrong_to_wrong=float(beliefs.p_neither[alone].sum()),
    )


def _budget(gain: Values) -> tuple[tuple[int, float], ...]:
    left = np.concatenate([[gain.sum()], gain.sum() - np.cumsum(-np.sort(-gain))]).clip(min=0)
    useful = int(np.count_nonzero(left > _LEFT * left[0])) if left[0] > 0 else 0
    end = min(max(useful, 10), len(gain))
    places = np.unique(np.linspace(0, end, _POINTS + 1).round().astype(int))
    return tuple((int(i), float(left[i])) for i in places)


def _classes(decisions: Decisions) -> tuple[ClassFigures, ...]:
    given, count = decisions.judgements.given, len(decisions.judgements.labels)

    def of(weights: NDArray[np.bool_] | Values) -> list[float]:
        return np.bincount(given, weights=weights, minlength=count).tolist()

    items = np.bincount(given, minlength=count).tolist()
    rows = zip(
        decisions.judgements.labels, items, of(decisions.flagged), of(decisions.beliefs.p_wrong),
        of(_changed(decisions)), strict=True,
    )  # fmt: skip
    return tuple(ClassFigures(name, n, int(flagged), wrong, int(changed)) for name, n, flagged, wrong, changed in rows)


def _pairs(decisions: Decisions) -> tuple[Pair, ...]:
    labels, given = decisions.judgements.labels, decisions.judgements.given
    changed = _changed(decisions)
    proposed = np.where(changed, decisions.label, decisions.evidence.candidate)
    counts, changes = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for i in np.flatnonzero(decisions.flagged).tolist():
        pair = int(given[i]), int(proposed[i])
        counts[pair] += 1
        changes[pair] += bool(changed[i])
    return tuple(Pair(labels[a], None if b < 0 else labels[b], n, changes[a, b]) for (a, b), n in counts.most_common())


def _reliability(decisions: Decisions, unheard: Mapping[int, float]) -> tuple[Bin, ...]:
    wrong = {i: decisions.verdicts[i] != decisions.judgements.given[i] for i in unheard}
    bins: list[Bin] = []
    for place in range(_BINS):
        inside = [i for i, p in unheard.items() if min(int(p * _BINS), _BINS - 1) == place]
        mean = sum(unheard[i] for i in inside) / len(inside) if inside else None
        bins.append(Bin(place / _BINS, (place + 1) / _BINS, mean, share(sum(wrong[i] for i in inside), len(inside))))
    return tuple(bins)


def _histogram(wrong: Values, flagged: Flags) -> tuple[Bar, ...]:
    items, edges = np.histogram(wrong, _BARS, (0, 1))
    theirs, _ = np.histogram(wrong[flagged], _BARS, (0, 1))
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), items.tolist(), theirs.tolist(), strict=True)
    return tuple(Bar(*row) for row in rows)


def _suspects(decisions: Decisions) -> tuple[Suspect, ...]:
    judgements, beliefs = decisions.judgements, decisions.beliefs
    labels: tuple[str | None, ...] = (*judgements.labels, None)  # -1 is none of them
    given: list[int] = judgements.given.tolist()
    candidate: list[int] = decisions.evidence.candidate.tolist()
    worst: list[int] = np.argsort(-beliefs.p_wrong, kind="stable")[:_SUSPECTS].tolist()
    found: list[Suspect] = []
    for i in worst:
        verdict = decisions.verdicts.get(i)
        found.append(
            Suspect(
                id=judgements.ids[i],
                given=judgements.labels[given[i]],
                candidate=labels[candidate[i]],
                p_given=float(beliefs.p_given[i]),
                p_candidate=float(beliefs.p_candidate[i]),
                p_neither=float(beliefs.p_neither[i]),
                action=decisions.action[i],
                verdict=None if verdict is None else labels[verdict] or NEITHER,
            )
        )
    return tuple(found)
