"""Draw the plots of the correction report. The card shows some of them too.

The plots contain no labels of items, because the report embeds no font. Such labels appear only in HTML, in the
reader's fonts.
"""

from collections.abc import Sequence

import matplotlib
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from tasks.report.correction.figures import Bar, Bin
from tasks.report.plots import ACCENT, INK, MUTED, STYLE, WARN, canvas, svg

_SIZE = (5.5, 3.35)
"""Width and height in inches. The page stretches each plot to the width of its column."""
_MANY = 200
"""From this bar height, the scale is logarithmic, because the many unsuspicious items would hide the others."""


def draw_reliability(bins: Sequence[Bin]) -> str:
    """Plot the share of items found wrong against predicted P(wrong), with Wilson intervals and item counts."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(*_SIZE)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as predicted")
        for found in bins:
            wrong = found.wrong
            if found.predicted is None or wrong.value is None or wrong.low is None or wrong.high is None:
                continue
            x = found.predicted
            axes.plot([x, x], [wrong.low, wrong.high], color=ACCENT, linewidth=2, alpha=0.45)
            axes.plot([x], [wrong.value], "o", color=ACCENT, markersize=6)
            axes.annotate(str(wrong.of), (x, wrong.value), (6, -3), textcoords="offset points", fontsize=9, color=MUTED)
        axes.set(xlim=(-0.02, 1.04), ylim=(-0.02, 1.02), xlabel="P(wrong), by models fitted without the verdict")
        axes.set_ylabel("share found wrong")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="upper left")
        return svg(figure, "reliability")


def draw_suspicion(bars: Sequence[Bar], threshold: float | None) -> str:
    """Plot how many items have which P(wrong). Flagged items have another colour; a line marks the threshold."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(*_SIZE)
        left, width = [b.low for b in bars], bars[0].high - bars[0].low
        axes.bar(left, [b.items for b in bars], width * 0.9, align="edge", color=MUTED, alpha=0.55, label="all items")
        axes.bar(left, [b.flagged for b in bars], width * 0.9, align="edge", color=WARN, label="flagged")
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="threshold")
        axes.set(xlim=(0, 1), xlabel="suspicion: P(given label is wrong)", ylabel="items")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if max(b.items for b in bars) >= _MANY:
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.7)
            axes.set_ylabel("items (logarithmic)")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.legend(loc="upper right")
        return svg(figure, "suspicion")


def draw_budget(points: Sequence[tuple[int, float]], items: int) -> str:
    """Plot the expected number of wrong labels against the number of further reviews.

    One curve reviews the items with the highest gain first; the other, for comparison, reviews items in any order.
    `items` is the number of items that are left to review.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(*_SIZE)
        x, y = [p[0] for p in points], [p[1] for p in points]
        at_random = [y[0] * (1 - min(n / max(items, 1), 1)) for n in x]
        axes.plot(x, at_random, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="in any order")
        axes.plot(x, y, color=ACCENT, linewidth=2, label="in order of gain")
        axes.fill_between(x, y, color=ACCENT, alpha=0.12, linewidth=0)
        axes.set(xlim=(0, max(x[-1], 1)), ylim=(0, max(y[0] * 1.06, 1e-6)))
        axes.set(xlabel="further reviews", ylabel="wrong labels expected")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.legend(loc="upper right")
        return svg(figure, "budget")
