# pyright: reportUnknownMemberType=false
# (matplotlib's keyword arguments have no types)
"""The card's proof: students by what they were taught, where the run was evaluated."""

from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.ticker import PercentFormatter
from pydantic import ValidationError

from tasks.evaluation.scores import Score
from tasks.evaluation.table import Report, format_points
from tasks.report.correction.tables import table
from tasks.report.plots import COLOURS, STYLE, WIDTH, canvas, svg, tip


def evaluation_of(output: Path) -> Report | None:
    """What `evaluate` found under the run's `output`; None where it was not run, or left what can't be read."""
    try:
        return Report.model_validate_json((output / "evaluate" / "scores.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def students(report: Report | None, *, transductive: bool = False) -> Markup:
    """Held-out accuracy of each variant's students as a chart and a table; nothing without an evaluation.

    `transductive`: emit let evaluation items into the set, so they may have been taught.
    """
    if report is None or not report.scores:
        return Markup("")
    first = report.scores[0]
    note = Markup(
        '<p class="note">The same student, trained on each variant of the set with the same number of steps: {} seeds, '
        "{:,} held-out items that {}. Intervals are 95 %.</p>"
    ).format(first.seeds, first.items, "may have been taught" if transductive else "were never taught")
    closed = Markup("")
    if report.gap_closed is not None:
        closed = Markup("<p>The emitted set closes {} of the gap between raw and true labels.</p>").format(
            f"{report.gap_closed.value:.0%} ({report.gap_closed.low:.0%} to {report.gap_closed.high:.0%})"
        )
    lifts = {x.variant: format_points(x.points) for x in report.lifts}
    rows = [
        (s.variant, f"{s.accuracy.value:.1%}", f"{s.accuracy.low:.1%} to {s.accuracy.high:.1%}",
         f"{s.macro_f1.value:.1%}", lifts.get(s.variant, "–"), "–" if s.agreement is None else f"{s.agreement:.0%}")
        for s in report.scores
    ]  # fmt: skip
    heads = ("taught", "accuracy", "interval", "macro F1", "lift, points", "reason and label agree")
    best = next((s for s in report.scores if s.variant == "all"), report.scores[-1])
    classes = [(c.label, c.items, f"{c.precision:.1%}", f"{c.recall:.1%}", f"{c.f1:.1%}") for c in best.classes]
    by_class = Markup("<details><summary>By class, taught <code>{}</code></summary>{}</details>").format(
        best.variant, table(("label", "held-out items", "precision", "recall", "F1"), classes, "tnnnn")
    )
    chart = Markup('<div class="chartbox">{}</div>').format(Markup(accuracy_chart(report.scores)))
    return note + closed + chart + table(heads, rows, "tnnnnn") + by_class


def accuracy_chart(scores: tuple[Score, ...]) -> str:
    """A dot a variant with its interval, and each seed's students as fainter dots; accuracy across."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(WIDTH, 0.7 + 0.36 * len(scores))
        tips: dict[str, str] = {}
        for place, s in enumerate(scores):
            axes.plot([s.accuracy.low, s.accuracy.high], [place, place], color=COLOURS["accent"], linewidth=2)
            axes.plot(s.by_seed, [place] * len(s.by_seed), "o", color=COLOURS["muted"], markersize=4, alpha=0.6)
            (dot,) = axes.plot([s.accuracy.value], [place], "o", color=COLOURS["accent"], markersize=8)
            tip(tips, dot, f"{s.variant}: {s.accuracy}")
        axes.set(yticks=range(len(scores)), yticklabels=[s.variant for s in scores], ylim=(len(scores) - 0.4, -0.6))
        axes.set_xlabel("held-out accuracy")
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.spines["left"].set_visible(False)
        return svg(figure, "students", tips)
