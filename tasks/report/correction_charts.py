# pyright: reportUnknownMemberType=false
# (matplotlib's keyword arguments have no types)
"""The report's plots, as SVG elements for a page that styles them: text and colours are the page's own.

No label is drawn in them: matplotlib's own fonts hold no Chinese, and machines need not have one that does. What names
classes is HTML, whose fonts are the reader's.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from tasks.report.correction_figures import Bar, Bin

# Colours that nothing else has stand for the page's variables, so that the plots follow its light and dark.
_COLOURS = {"ink": "#010203", "muted": "#010204", "grid": "#010205", "accent": "#010206", "warn": "#010207"}
_INK, _MUTED, _GRID, _ACCENT, _WARN = _COLOURS.values()
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "labelstill",
    "font.size": 11,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
}
_SIZE = (6.4, 3.9)
"""Inches, at 72 points each; the page stretches it to its column."""
_MANY = 200
"""Bars this high are drawn on a logarithmic scale: most items are beyond doubt, and would hide the others."""


def reliability_chart(bins: Sequence[Bin]) -> str:
    """P(wrong) said against the share found wrong, with Wilson intervals, and how many items each point stands for."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas()
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as said")
        for found in bins:
            wrong = found.wrong
            if found.predicted is None or wrong.value is None or wrong.low is None or wrong.high is None:
                continue
            x = found.predicted
            axes.plot([x, x], [wrong.low, wrong.high], color=_ACCENT, linewidth=2, alpha=0.45)
            axes.plot([x], [wrong.value], "o", color=_ACCENT, markersize=6)
            axes.annotate(
                str(wrong.of), (x, wrong.value), (6, -3), textcoords="offset points", fontsize=9, color=_MUTED
            )
        axes.set(xlim=(-0.02, 1.04), ylim=(-0.02, 1.02), xlabel="P(wrong), by models that did not know the verdict")
        axes.set_ylabel("share found wrong")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="upper left")
        return _svg(figure, "reliability")


def suspicion_chart(bars: Sequence[Bar], threshold: float | None) -> str:
    """How many items have which P(wrong), those flagged in another colour, and the threshold."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas()
        left, width = [b.low for b in bars], bars[0].high - bars[0].low
        axes.bar(left, [b.items for b in bars], width * 0.9, align="edge", color=_MUTED, alpha=0.55, label="all items")
        axes.bar(left, [b.flagged for b in bars], width * 0.9, align="edge", color=_WARN, label="flagged")
        if threshold is not None:
            axes.axvline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)), label="threshold")
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
        return _svg(figure, "suspicion")


def budget_chart(points: Sequence[tuple[int, float]], items: int) -> str:
    """Wrong labels expected after so many further reviews, in order of gain and, for comparison, in any order.

    `items` is how many there are left to review.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas()
        x, y = [p[0] for p in points], [p[1] for p in points]
        at_random = [y[0] * (1 - min(n / max(items, 1), 1)) for n in x]
        axes.plot(x, at_random, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), label="in any order")
        axes.plot(x, y, color=_ACCENT, linewidth=2, label="in order of gain")
        axes.fill_between(x, y, color=_ACCENT, alpha=0.12, linewidth=0)
        axes.set(xlim=(0, max(x[-1], 1)), ylim=(0, max(y[0] * 1.06, 1e-6)))
        axes.set(xlabel="further reviews", ylabel="wrong labels expected")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.legend(loc="upper right")
        return _svg(figure, "budget")


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element whose ids no other chart on the page has."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    for variable, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg class="chart" role="img" viewBox="\1">', text, count=1)
    text = text.replace("xlink:href=", "href=")
    return re.sub(r'( id="|"#|url\(#)', rf"\g<1>{name}-", text)
