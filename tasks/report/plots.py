# pyright: reportUnknownMemberType=false
# (matplotlib's keyword arguments have no types)
"""What the plots of card and correction report share: SVG elements whose colours and fonts are the page's.

Text stays text (selectable, found by a search) and is measured with the font that the card embeds (tasks/report/fonts).
Labels come from data; matplotlib escapes them, and is told to read no mathematics into a `$`.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from tasks.report.fonts import CHART_FONTS, make_legible, register_chart_fonts

# Colours that nothing else has stand for the page's variables, so that the plots follow its light and dark.
_VARIABLES = ("ink", "muted", "grid", "accent", "warn", "good", "second", "third", "card")
COLOURS = {name: f"#0102{number:02d}" for number, name in enumerate(_VARIABLES, 3)}
INK, MUTED, GRID, ACCENT, WARN = (COLOURS[name] for name in _VARIABLES[:5])
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "labelstill",
    "font.family": list(CHART_FONTS),
    "font.size": 9.5,
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
WIDTH = 8.6
"""Inches, at 72 points each, that fill the card's column; half of it fills one of two columns."""
_LONGEST = 18
"""Characters of a label on an axis: all of it is in the table beside."""


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of so many inches; under the style that the caller has set."""
    register_chart_fonts()
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def counted(axes: Axes, name: str) -> None:
    """Whole numbers with separators on that axis."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def svg(figure: Figure, name: str, tips: Mapping[str, str] | None = None) -> str:
    """The figure as an element whose ids no other chart on the page has; `tips` are tooltips by an artist's gid."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    for gid, said in (tips or {}).items():
        text = text.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(make_legible(said))}</title>', 1)
    points = figure.get_size_inches()[0] * 72
    shape = rf'<svg class="chart" role="img" aria-label="chart: {name}" style="--points: {points:.0f}" viewBox="\1">'
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', shape, text, count=1)
    return re.sub(r"<[^>]*>", lambda tag: _on_the_page(tag[0], name), text)  # not in the texts, which are data


def _on_the_page(tag: str, name: str) -> str:
    """A tag with the page's colours and with ids that begin with the chart's name."""
    for variable, colour in COLOURS.items():
        tag = tag.replace(colour, f"var(--{variable})")
    return re.sub(r'( id="|"#|url\(#)', rf"\g<1>{name}-", tag.replace("xlink:href=", "href="))


def tip(tips: dict[str, str], artist: Any, text: str) -> None:
    """Give the artist a tooltip: `svg` writes those of `tips`."""
    gid = f"tip{len(tips)}"
    artist.set_gid(gid)
    tips[gid] = text


def short(label: str) -> str:
    """A label as it fits beside a chart: one line, cut."""
    label = " ".join(make_legible(label).split())
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
