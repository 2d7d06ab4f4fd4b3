"""Score students on held-out items, and compare training sets, with 95 % intervals.

Intervals are percentiles of a bootstrap over items and seeds at once: both the items and each side's students are drawn
with replacement (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; with two crossed factors, Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 2007).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tasks.records import Interval, Prediction, Record, Sample

Labels = NDArray[np.int64]
"""[seeds, items] The class index of each answer; -1 for an answer that could not be read."""
_DRAWS = 2000
_TAILS = (2.5, 97.5)


class ClassScore(Record):
    """Scores of one class over all seeds."""

    label: str
    precision: float
    recall: float
    f1: float
    items: int
    """Number of held-out items of this class."""


class Scored(Record):
    """One student's answer about one held-out item; `labelstill compare` reads the stored rows."""

    sample_id: str
    variant: str
    """The training set of the student (tasks/evaluation/variants.py)."""
    seed: int
    truth: str
    """The true label."""
    label: str | None
    """The predicted label; None if the answer could not be read."""
    p: float | None = None
    """The student's probability of `label`."""
    reason: str = ""
    """The reason given when the student was asked for one."""
    reasoned: str | None = None
    """The label given after that reason."""
    boxes_found: float | None = None
    """Share of the item's boxes that the reason points at; None if the item or the task has none."""


class Score(Record):
    """Scores of a variant's students on the held-out items."""

    variant: str
    seeds: int
    items: int
    accuracy: Interval
    macro_f1: Interval
    by_seed: tuple[float, ...]
    """Accuracy of each student."""
    agreement: float | None
    """Share of items that get the same label with a reason as without one; None if reasons were not asked for."""
    boxes_found: float | None = None
    """Mean share of an item's boxes that reasons point at, with an overlap (IoU) of .5 or more; None without boxes."""
    classes: tuple[ClassScore, ...]
    confusion: dict[str, dict[str, int]]
    """Maps true label and predicted label to a number of answers, over all seeds; `(none)` is an unreadable answer."""


class Lift(Record):
    """The difference in accuracy between `variant` and `base`."""

    base: str
    variant: str
    points: Interval


def make_rows(
    variant: str,
    seed: int,
    items: Sequence[Sample],
    labels: Mapping[str, str],
    answers: Mapping[str, Prediction],
    reasoned: Mapping[str, Prediction] = {},
    boxes_found: Mapping[str, float | None] = {},
) -> list[Scored]:
    """Return one row per item: the student's answer and the true label.

    All mappings are keyed by sample id: `labels` has the true labels, `answers` the answers without a reason, and
    `reasoned` the answers after a reason, if reasons were asked for, and `boxes_found` the share of boxes that these
    reasons point at.
    """
    rows: list[Scored] = []
    for item in items:
        answer = answers[item.id]
        after = reasoned.get(item.id)
        rows.append(
            Scored(
                sample_id=item.id,
                variant=variant,
                seed=seed,
                truth=labels[item.id],
                label=answer.label,
                p=answer.probabilities.get(answer.label or ""),
                reason=after.reason if after else "",
                reasoned=after.label if after else None,
                boxes_found=boxes_found.get(item.id),
            )
        )
    return rows


def score(variant: str, answers: Sequence[Scored]) -> Score:
    """Return the score of one variant's answers; raises ValueError unless each seed answered the same items."""
    table = _Table.of(answers)
    right = table.given == table.truth
    items, seeds = _draw(np.random.default_rng(0), right.shape)
    f1s = np.array(
        [_compute_macro_f1(table.truth[i], table.given[np.ix_(s, i)]) for i, s in zip(items, seeds, strict=True)]
    )
    flat_truth, flat = np.tile(table.truth, len(table.given)), table.given.ravel()
    places = range(len(table.classes))
    measured: Any = precision_recall_fscore_support(flat_truth, flat, labels=list(places), zero_division=cast(Any, 0.0))
    precision, recall, f1, support = measured
    reasoned = [a for a in answers if a.reasoned is not None]
    found = [a.boxes_found for a in answers if a.boxes_found is not None]
    return Score(
        variant=variant,
        seeds=len(table.given),
        items=len(table.truth),
        accuracy=_make_interval(float(right.mean()), *_resample(right)),
        macro_f1=_make_interval(_compute_macro_f1(table.truth, table.given), f1s),
        by_seed=tuple(float(x) for x in right.mean(1)),
        agreement=sum(a.reasoned == a.label for a in reasoned) / len(reasoned) if reasoned else None,
        boxes_found=sum(found) / len(found) if found else None,
        classes=tuple(
            ClassScore(
                label=table.classes[c],
                precision=float(precision[c]),
                recall=float(recall[c]),
                f1=float(f1[c]),
                items=int(support[c]) // len(table.given),
            )
            for c in places
        ),
        confusion=_count_confusions(table, flat_truth, flat),
    )


def measure_lift(base: str, base_answers: Sequence[Scored], variant: str, answers: Sequence[Scored]) -> Lift:
    """Return how much more accurate `variant` is than `base`, on the items that both answered.

    Raises ValueError if there are no such items.
    """
    a, b = _right_together(base_answers, answers)
    of_a, of_b = _resample(a, b)
    return Lift(base=base, variant=variant, points=_make_interval(float(b.mean() - a.mean()), of_b - of_a))


def measure_gap_closed(raw: Sequence[Scored], best: Sequence[Scored], ceiling: Sequence[Scored]) -> Interval:
    """Return the share of the accuracy gap between `raw` and `ceiling` that `best` closes, with its interval.

    Raises ValueError unless the three answered the same items.
    """
    a, b = _right_together(raw, best)
    _, c = _right_together(raw, ceiling)
    if a.shape[1] != c.shape[1] or a.shape[1] != b.shape[1]:
        raise ValueError("raw, best and ceiling must have answered the same items")
    low, mid, high = _resample(a, b, c)
    has_gap = high > low
    shares = (mid - low)[has_gap] / (high - low)[has_gap]
    gap = float(c.mean() - a.mean())
    value = float(b.mean() - a.mean()) / gap if gap > 0 else float("nan")
    return _make_interval(value, shares if len(shares) else np.array([np.nan]))


@dataclass(frozen=True)
class _Table:
    """The answers of one variant as arrays: `truth` [items], `given` [seeds, items]."""

    classes: tuple[str, ...]
    truth: NDArray[np.int64]
    given: Labels

    @classmethod
    def of(cls, answers: Sequence[Scored]) -> "_Table":
        seeds = sorted({a.seed for a in answers})
        truth = {a.sample_id: a.truth for a in answers}
        ids = sorted(truth)
        labels = {(a.seed, a.sample_id): a.label for a in answers}
        if missing := [(s, i) for s in seeds for i in ids if (s, i) not in labels]:
            raise ValueError(
                f"{len(missing)} answers are missing, the first of seed {missing[0][0]} about item {missing[0][1]}"
            )
        classes = tuple(sorted({*truth.values(), *(label for label in labels.values() if label is not None)}))
        place: Mapping[str | None, int] = {label: i for i, label in enumerate(classes)} | {None: -1}
        return cls(
            classes,
            np.array([place[truth[i]] for i in ids], dtype=np.int64),
            np.array([[place[labels[s, i]] for i in ids] for s in seeds], dtype=np.int64),
        )


def _right_together(a: Sequence[Scored], b: Sequence[Scored]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether each answer is right, [seeds, items], for the items that both sides answered."""
    shared = {x.sample_id for x in a} & {x.sample_id for x in b}
    if not shared:
        raise ValueError("the two sides have no answered item in common")
    sides = [_Table.of([x for x in side if x.sample_id in shared]) for side in (a, b)]
    first, second = (table.given == table.truth for table in sides)
    return first, second


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Return the items and the seeds of each bootstrap draw."""
    seeds, items = shape
    return (
        [rng.integers(0, items, items) for _ in range(_DRAWS)],
        [rng.integers(0, seeds, seeds) for _ in range(_DRAWS)],
    )


def _resample(*sides: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the accuracy of each side [seeds, items] in every draw; a draw takes the same items from all sides."""
    rng = np.random.default_rng(0)
    drawn = [_draw(rng, side.shape) for side in sides]
    items = drawn[0][0]
    return [
        np.array([side[np.ix_(s, i)].mean() for i, s in zip(items, seeds, strict=True)])
        for side, (_, seeds) in zip(sides, drawn, strict=True)
    ]


def _compute_macro_f1(truth: NDArray[np.int64], given: Labels) -> float:
    """Return the mean F1 of the classes that occur in `truth`; `given` is [items] or [seeds, items]."""
    rows = np.atleast_2d(given)
    classes = int(max(truth.max(), rows.max())) + 1
    hits = np.bincount(np.broadcast_to(truth, rows.shape)[rows == truth], minlength=classes)
    actual = np.bincount(truth, minlength=classes) * len(rows)
    claimed = np.bincount(rows[rows >= 0], minlength=classes)
    present = actual > 0
    return float((2 * hits[present] / (actual + claimed)[present]).mean())


def _make_interval(value: float, draws: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(draws, _TAILS)
    return Interval(value=value, low=float(low), high=float(high))


def _count_confusions(table: _Table, truth: NDArray[np.int64], given: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    places = [*range(len(table.classes)), -1]
    names = [*table.classes, "(none)"]
    counts = confusion_matrix(truth, given, labels=places)
    return {
        names[row]: {names[column]: int(n) for column, n in enumerate(counts[row]) if n}
        for row in range(len(table.classes))
    }
