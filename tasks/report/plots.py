"""Draw SVG charts in the colours and fonts of the page, for the card and the correction report.

Text in a chart stays text, so that it can be selected and searched. It is measured with the font that the card embeds
(tasks/report/fonts.py). Labels come from data, so matplotlib escapes them. `text.parse_math` is off, because otherwise
`$` would begin a formula.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from tasks.storage.fonts import CHART_FONTS, make_legible, register_chart_fonts

# Each colour is a placeholder for a CSS variable of the page, so that charts follow its light and dark colours.
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
"""Width of the card's column in inches of 72 points. A chart in one of two columns has half this width."""
_AXIS_CHARACTERS = 18
"""Maximum length of a label on an axis, in characters. The table shows the whole label."""


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of this size in inches. Call it within `rc_context(STYLE)`."""
    register_chart_fonts()
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def show_whole_numbers(axes: Axes, name: str) -> None:
    """Label the axis `x` or `y` with whole numbers that have thousands separators."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def svg(figure: Figure, name: str, tips: Mapping[str, str] | None = None) -> str:
    """Return the figure as an SVG element whose ids are unique on the page. `tips` is the dict that `add_tip` fills."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    for gid, tip in (tips or {}).items():
        text = text.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(make_legible(tip))}</title>', 1)
    points = figure.get_size_inches()[0] * 72
    shape = rf'<svg class="chart" role="img" aria-label="chart: {name}" style="--points: {points:.0f}" viewBox="\1">'
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', shape, text, count=1)
    return re.sub(r"<[^>]*>", lambda tag: _adapt_tag(tag[0], name), text)  # the texts between tags are data


def _adapt_tag(tag: str, name: str) -> str:
    """Return the tag with the page's colours and with ids that start with the chart's name."""
    for variable, colour in COLOURS.items():
        tag = tag.replace(colour, f"var(--{variable})")
    return re.sub(r'( id="|"#|url\(#)', rf"\g<1>{name}-", tag.replace("xlink:href=", "href="))


def add_tip(tips: dict[str, str], artist: Any, text: str) -> None:
    """Give the artist a tooltip by adding it to `tips`. `svg` writes the tooltips."""
    gid = f"tip{len(tips)}"
    artist.set_gid(gid)
    tips[gid] = text


def shorten(label: str) -> str:
    """Shorten a label to one line that fits beside a chart."""
    label = " ".join(make_legible(label).split())
    return label if len(label) <= _AXIS_CHARACTERS else label[: _AXIS_CHARACTERS - 1] + "…"
