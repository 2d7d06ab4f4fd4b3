"""Report one evaluation, or compare two, in Markdown tables with one row per variant."""

from collections.abc import Iterable, Sequence

from tasks.evaluation.scores import Lift, Score, Scored, measure_gap_closed, measure_lift, score
from tasks.evaluation.variants import FROM_FOLDS, Variant
from tasks.records import Interval, Record

TRANSDUCTIVE = (
    "Transductive: this training set may contain evaluation items or near-duplicates of them. Scores on that "
    "evaluation set say nothing about new data."
)


class Report(Record):
    """The result of an evaluation; the content of `scores.json`."""

    scores: tuple[Score, ...]
    lifts: tuple[Lift, ...]
    """The lift of each variant over RAW, or over the first variant if RAW was not measured."""
    gap_closed: Interval | None
    """Share of the gap between RAW and CEILING that ALL closes; None unless all three were measured."""
    transductive: bool = False
    """Whether the training set may contain evaluation items."""

    def figures(self) -> dict[str, float]:
        """Return a mapping from name to figure, for the stage's record."""
        found = {f"accuracy of {s.variant}": s.accuracy.value for s in self.scores}
        found |= {f"lift of {x.variant}": x.points.value for x in self.lifts}
        found |= {f"boxes found by {s.variant}": s.boxes_found for s in self.scores if s.boxes_found is not None}
        if self.gap_closed is not None:
            found["gap closed"] = self.gap_closed.value
        return found


def make_report(rows: Iterable[Scored], *, transductive: bool = False) -> Report:
    """Return each variant's scores, and its lift over RAW, or over the first variant if RAW was not measured."""
    answers: dict[str, list[Scored]] = {}
    for row in rows:
        answers.setdefault(row.variant, []).append(row)
    base = Variant.RAW if Variant.RAW in answers else next(iter(answers), "")
    wanted = (Variant.RAW, Variant.ALL, Variant.CEILING)
    return Report(
        scores=tuple(score(variant, found) for variant, found in answers.items()),
        lifts=tuple(measure_lift(base, answers[base], v, found) for v, found in answers.items() if v != base),
        gap_closed=measure_gap_closed(*(answers[v] for v in wanted)) if all(v in answers for v in wanted) else None,
        transductive=transductive,
    )


def describe(report: Report) -> str:
    """Return the report as a Markdown table: accuracy, macro F1 and lift with 95 % intervals."""
    lifts = {x.variant: x for x in report.lifts}
    lines = [f"**{TRANSDUCTIVE}**", ""] if report.transductive else []
    points = any(s.boxes_found is not None for s in report.scores)
    pointed = (" boxes found |", "--:|") if points else ("", "")
    lines += [
        f"| trained on | accuracy | macro F1 | lift, points | reason and label agree |{pointed[0]} by seed |",
        f"|---|---|---|---|--:|{pointed[1]}---|",
    ]
    for s in report.scores:
        gain = format_points(lifts[s.variant].points) if s.variant in lifts else "–"
        agree = "–" if s.agreement is None else f"{s.agreement:.1%}"
        seeds = ", ".join(f"{x:.1%}" for x in s.by_seed)
        found = "" if not points else " – |" if s.boxes_found is None else f" {s.boxes_found:.1%} |"
        lines.append(f"| {s.variant} | {s.accuracy} | {s.macro_f1} | {gain} | {agree} |{found} {seeds} |")
    if report.scores:
        first = report.scores[0]
        lines += ["", f"{first.items} held-out items, {first.seeds} students each; intervals are 95 %."]
        if any(s.variant in FROM_FOLDS for s in report.scores):
            lines.append("`ensemble` and `fused` have one per repeat of the folds.")
    if points:
        lines.append("A box is found if one that the reason points at overlaps it by .5 or more (IoU).")
    if report.gap_closed is not None:
        lines.append(f"`all` closes {report.gap_closed} of the gap between `raw` and `ceiling`.")
    return "\n".join(lines)


def format_points(interval: Interval) -> str:
    """Return a difference of two shares, with its interval, in percentage points."""
    value, low, high = (100 * x for x in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def compare(name_a: str, a: Sequence[Scored], name_b: str, b: Sequence[Scored]) -> str:
    """Compare two runs on the items that both answered; return Markdown tables of variants and of F1 by class.

    F1 by class is given for ALL, or for the last common variant if ALL is not in both runs. The table lists the classes
    that occur in the truth or the answers of either run. Raises ValueError if the runs have no item or variant in
    common.
    """
    shared_items = {x.sample_id for x in a} & {x.sample_id for x in b}
    of_a = [x for x in a if x.sample_id in shared_items]
    of_b = [x for x in b if x.sample_id in shared_items]
    variants = [v for v in dict.fromkeys(x.variant for x in of_a) if any(x.variant == v for x in of_b)]
    if not variants:
        raise ValueError("the two runs have no held-out item, or no variant, in common")
    lines = [
        f"A: {name_a}",
        f"B: {name_b}",
        "",
        f"{len(shared_items)} held-out items in common; intervals are 95 %.",
        "",
        "| trained on | A | B | B − A, points |",
        "|---|---|---|---|",
    ]
    scores: dict[str, tuple[Score, Score]] = {}
    for variant in variants:
        ours, theirs = ([x for x in side if x.variant == variant] for side in (of_a, of_b))
        scores[variant] = both = score(variant, ours), score(variant, theirs)
        difference = measure_lift(variant, ours, variant, theirs).points
        lines.append(f"| {variant} | {both[0].accuracy} | {both[1].accuracy} | {format_points(difference)} |")
    best = Variant.ALL if Variant.ALL in scores else variants[-1]
    f1_a, f1_b = ({c.label: c.f1 for c in side.classes} for side in scores[best])
    items = {c.label: c.items for side in reversed(scores[best]) for c in side.classes}
    labels = sorted(items, key=lambda x: (f1_b.get(x, 0.0) - f1_a.get(x, 0.0), x))
    lines += [
        "",
        f"F1 by class, trained on `{best}`:",
        "",
        "| label | items | A | B | B − A |",
        "|---|--:|--:|--:|--:|",
    ]
    for label in labels:
        first, second = f1_a.get(label, 0.0), f1_b.get(label, 0.0)
        lines.append(f"| {label} | {items[label]} | {first:.1%} | {second:.1%} | {100 * (second - first):+.1f} |")
    return "\n".join(lines)
