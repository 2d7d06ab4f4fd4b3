"""Every figure of a correction's report: what stands in report.json, and how it is measured."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tasks.correction.calibration import Flags, Values, flag_for_best_f1
from tasks.correction.decide import Decisions
from tasks.correction.gate import Gate, cross_fit, wilson_interval
from tasks.records import NEITHER, Action, Interval

_BINS = 10
_BARS = 40
_SUSPECTS = 30
_POINTS = 200
_LEFT = 0.05
"""The budget curve ends where this share of the wrong labels expected now is left: beyond it, nothing is to be seen."""


@dataclass(frozen=True)
class Share:
    """`hits` of `of`, with the 95 % Wilson interval; None without any."""

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Pair:
    """Flagged items of one given label with one proposed label (None: none of the labels)."""

    given: str
    proposed: str | None
    items: int
    changed: int
    """Of these, the ones whose label was changed (or that were dropped)."""


@dataclass(frozen=True)
class ClassFigures:
    """The items of one given label."""

    label: str
    items: int
    flagged: int
    expected_wrong: float
    changed: int


@dataclass(frozen=True)
class Bin:
    """Judged items whose P(wrong), by a model that did not know their verdict, lies in [low, high)."""

    low: float
    high: float
    predicted: float | None
    wrong: Share


@dataclass(frozen=True)
class Bar:
    """All items whose P(wrong) lies in [low, high)."""

    low: float
    high: float
    items: int
    flagged: int


@dataclass(frozen=True)
class Suspect:
    """One item of the list of the most suspicious ones."""

    id: str
    given: str
    candidate: str | None
    p_given: float
    p_candidate: float
    p_neither: float
    action: Action
    verdict: str | None


@dataclass(frozen=True)
class Changes:
    """Labels that are not the given ones any more; the last three are expected numbers of the unreviewed ones."""

    by_verdict: int
    dropped: int
    unreviewed: int
    right_to_wrong: float
    wrong_to_right: float
    wrong_to_wrong: float


@dataclass(frozen=True)
class Figures:
    """The whole report. Lists of classes are in the order of `labels`."""

    title: str
    items: int
    labels: tuple[str, ...]
    repeats: int
    actions: dict[str, int]
    flagged: int
    verdicts: int
    reviews: int
    """Items that were put before the person, of which `audited` make the audit."""
    audited: int
    verdicts_from_before: int
    teacher_calls: int
    teacher_without_answer: int
    costs: dict[str, float]
    calibrated: bool
    """Whether there were verdicts enough for estimates; else P(wrong) is a prior's."""
    estimates: dict[str, Interval]
    threshold: float | None
    """Lowest P(wrong) that is flagged; None where flags are not set by it."""
    audited_verdicts: int
    measured_precision: Share | None
    """On the audited items that have a verdict, each judged by a model that did not know it."""
    measured_recall: Share | None
    gate: Gate
    gate_open: bool
    changes: Changes
    expected_wrong_given: float
    """Given labels expected to be wrong; an item with a verdict counts as the verdict says."""
    expected_wrong_left: float
    """The same of the final labels."""
    budget: tuple[tuple[int, float], ...]
    """(further reviews in order of gain, wrong labels expected then)."""
    classes: tuple[ClassFigures, ...]
    pairs: tuple[Pair, ...]
    """The commonest first."""
    reliability: tuple[Bin, ...]
    histogram: tuple[Bar, ...]
    suspects: tuple[Suspect, ...]
    excluded: dict[str, str]


def measure(
    decisions: Decisions,
    *,
    title: str,
    costs: Mapping[str, float],
    excluded: Mapping[str, str],
    repeats: int,
) -> Figures:
    """Return all that the report says; see `write_report` in report.py."""
    judgements, verdicts, beliefs = decisions.judgements, decisions.verdicts, decisions.beliefs
    asked = decisions.person_asked.tolist()
    audited = [i for i in asked[: decisions.audited] if i in verdicts]
    held_out = predict_held_out(decisions)
    threshold = _find_threshold(decisions)
    precision, recall = _measure_flags(decisions, audited, held_out, threshold)
    without_answer = 0
    if decisions.teacher is not None:
        without_answer = int(np.isnan(decisions.teacher[decisions.teacher_asked, 0]).sum())
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
        teacher_without_answer=without_answer,
        costs=dict(costs),
        calibrated=bool(decisions.estimates),
        estimates=decisions.estimates,
        threshold=threshold,
        audited_verdicts=len(audited),
        measured_precision=precision,
        measured_recall=recall,
        gate=decisions.gate,
        gate_open=decisions.gate.open,
        changes=_count_changes(decisions),
        expected_wrong_given=_expect_wrong(decisions),
        expected_wrong_left=float(decisions.gain.sum()),
        budget=_plan_budget(decisions.gain),
        classes=_count_classes(decisions),
        pairs=_count_pairs(decisions),
        reliability=_measure_reliability(decisions, held_out),
        histogram=_count_by_suspicion(beliefs.p_wrong, decisions.flagged),
        suspects=_list_suspects(decisions),
        excluded=dict(excluded),
    )


def predict_held_out(decisions: Decisions) -> dict[int, float]:
    """Return P(wrong) of each item with a verdict, by a model fitted to the other four fifths of the verdicts."""
    parts = cross_fit(decisions.judgements, decisions.evidence, decisions.verdicts)
    return {i: float(beliefs.p_wrong[i]) for held_out, beliefs in parts for i in held_out}


def share(hits: int, of: int) -> Share:
    """Return the share with its Wilson interval."""
    if of == 0:
        return Share(0, 0, None, None, None)
    return Share(hits, of, hits / of, *wilson_interval(hits, of))


def _find_threshold(decisions: Decisions) -> float | None:
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


def _measure_flags(
    decisions: Decisions, audited: list[int], held_out: Mapping[int, float], threshold: float | None
) -> tuple[Share | None, Share | None]:
    if threshold is None or not audited:
        return None, None
    flagged = {i for i in audited if held_out[i] >= threshold}
    wrong = {i for i in audited if decisions.verdicts[i] != decisions.judgements.given[i]}
    both = len(flagged & wrong)
    return share(both, len(flagged)), share(both, len(wrong))


def _changed(decisions: Decisions) -> Flags:
    return decisions.label != decisions.judgements.given


def _expect_wrong(decisions: Decisions) -> float:
    wrong = decisions.beliefs.p_wrong.copy()
    for item, verdict in decisions.verdicts.items():
        wrong[item] = verdict != decisions.judgements.given[item]
    return float(wrong.sum())


def _count_changes(decisions: Decisions) -> Changes:
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


def _plan_budget(gain: Values) -> tuple[tuple[int, float], ...]:
    left = np.concatenate([[gain.sum()], gain.sum() - np.cumsum(-np.sort(-gain))]).clip(min=0)
    useful = int(np.count_nonzero(left > _LEFT * left[0])) if left[0] > 0 else 0
    end = min(max(useful, 10), len(gain))
    places = np.unique(np.linspace(0, end, _POINTS + 1).round().astype(int))
    return tuple((int(i), float(left[i])) for i in places)


def _count_classes(decisions: Decisions) -> tuple[ClassFigures, ...]:
    changed = _changed(decisions)
    found: list[ClassFigures] = []
    for number, label in enumerate(decisions.judgements.labels):
        own = decisions.judgements.given == number
        found.append(
            ClassFigures(
                label=label,
                items=int(own.sum()),
                flagged=int(decisions.flagged[own].sum()),
                expected_wrong=float(decisions.beliefs.p_wrong[own].sum()),
                changed=int(changed[own].sum()),
            )
        )
    return tuple(found)


def _count_pairs(decisions: Decisions) -> tuple[Pair, ...]:
    labels, given = decisions.judgements.labels, decisions.judgements.given
    changed = _changed(decisions)
    proposed = np.where(changed, decisions.label, decisions.evidence.candidate)
    counts, changes = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for i in np.flatnonzero(decisions.flagged).tolist():
        pair = int(given[i]), int(proposed[i])
        counts[pair] += 1
        changes[pair] += bool(changed[i])
    return tuple(Pair(labels[a], None if b < 0 else labels[b], n, changes[a, b]) for (a, b), n in counts.most_common())


def _measure_reliability(decisions: Decisions, held_out: Mapping[int, float]) -> tuple[Bin, ...]:
    wrong = {i: bool(decisions.verdicts[i] != decisions.judgements.given[i]) for i in held_out}
    bins: list[Bin] = []
    for place in range(_BINS):
        inside = [i for i, p in held_out.items() if min(int(p * _BINS), _BINS - 1) == place]
        mean = sum(held_out[i] for i in inside) / len(inside) if inside else None
        bins.append(Bin(place / _BINS, (place + 1) / _BINS, mean, share(sum(wrong[i] for i in inside), len(inside))))
    return tuple(bins)


def _count_by_suspicion(wrong: Values, flagged: Flags) -> tuple[Bar, ...]:
    items, edges = np.histogram(wrong, _BARS, (0, 1))
    theirs, _ = np.histogram(wrong[flagged], _BARS, (0, 1))
    rows = zip(edges[:-1].tolist(), edges[1:].tolist(), items.tolist(), theirs.tolist(), strict=True)
    return tuple(Bar(*row) for row in rows)


def _list_suspects(decisions: Decisions) -> tuple[Suspect, ...]:
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
