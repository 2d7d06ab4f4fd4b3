# pyright: reportUnknownMemberType=false
# (matplotlib's keyword arguments have no types)
"""The flow of items through a run, from what was read to what is taught, as a Sankey diagram (drawn by matplotlib).

Counts only: `kept + dropped = input` holds in every stage, so what is not in the next column was left out.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline

from tasks.records import Origin
from tasks.report.card.facts import Facts
from tasks.report.charts import ORIGINS
from tasks.report.plots import COLOURS, STYLE, WIDTH, canvas, svg, tip
from tasks.storage.stage_record import StageRecord

_LANE, _REST = 1.8, 0.7
"""Inches: height of a lane, and of everything else."""
_TOP, _NODE, _GAP, _LEAST = 24.0, 9.0, 17.0, 0.8
"""Points: room for the headings, width of a node, between nodes of a column, thinnest band."""
_COLUMNS = ("read", "checked", "pseudo-labels", "emitted, by origin", "the set")
_LABELLED, _POOL = "labelled", "pool"
_OF_LABELLED = (Origin.REVIEW, Origin.CORRECTION, Origin.GIVEN)
_LANES = dict.fromkeys((o.value for o in _OF_LABELLED), _LABELLED) | {Origin.PSEUDO.value: _POOL}


@dataclass(frozen=True)
class Node:
    """A place of the diagram."""

    name: str
    lane: str
    column: int
    """Index of _COLUMNS."""
    colour: str
    """A variable of the page."""


@dataclass(frozen=True)
class Link:
    """So many items go from one place to another."""

    source: Node
    target: Node
    count: int


def list_links(facts: Facts) -> list[Link]:
    """The run's flow; empty for a run of which nothing was read."""
    origins, judged_pool = facts.emitted.origins, facts.emitted.judged_pool
    of_labelled = {o: origins[o] - (judged_pool if o is Origin.REVIEW else 0) for o in _OF_LABELLED}
    emitted = {o: Node(o, _LANES.get(o, o), 3, ORIGINS.get(o, "muted")) for o in (*ORIGINS, *origins)}
    links: list[Link] = []
    if (record := facts.records.get("samples/labelled")) is not None:
        usable = Node("usable", _LABELLED, 1, "accent")
        links += _read(record, usable)
        links += [Link(usable, emitted[o], count) for o, count in of_labelled.items()]
        if "emit" in facts.records:
            rest = record.kept - sum(of_labelled.values())
            links.append(Link(usable, Node("left out", _LABELLED, 3, "muted"), rest))
    if (record := facts.records.get("samples/unlabelled")) is not None:
        usable, trusted = Node("usable", _POOL, 1, "second"), Node("trusted", _POOL, 2, "second")
        links += _read(record, usable)
        if (judged := facts.records.get("pseudo_labels")) is not None:
            links.append(Link(usable, trusted, judged.kept))
            links.append(Link(usable, Node("not trusted", _POOL, 2, "muted"), judged.dropped))
            links.append(Link(trusted, emitted[Origin.PSEUDO], origins[Origin.PSEUDO]))
        links.append(Link(usable if judged is None else trusted, emitted[Origin.REVIEW], judged_pool))
        if judged is not None and "emit" in facts.records:
            rest = judged.kept - origins[Origin.PSEUDO] - judged_pool
            links.append(Link(trusted, Node("left out", _POOL, 3, "muted"), rest))
    for (origin, subset), count in sorted(facts.emitted.parts.items()):
        links.append(Link(emitted[origin], Node(subset, "", 4, "ink"), count))
    return [link for link in links if link.count > 0]


def _read(record: StageRecord, usable: Node) -> list[Link]:
    read = Node(usable.lane, usable.lane, 0, usable.colour)
    refused = Node("refused", usable.lane, 1, "muted")
    return [Link(read, usable, record.kept), Link(read, refused, record.dropped)]


@matplotlib.rc_context(STYLE)
def draw_flow(links: Sequence[Link]) -> str:
    """The diagram as an SVG element; each band's tooltip says what it stands for."""
    sizes = {
        node: max(sum(k.count for k in links if k.source == node), sum(k.count for k in links if k.target == node))
        for node in dict.fromkeys(node for link in links for node in (link.source, link.target))
    }
    height = _REST + _LANE * len({node.lane for node in sizes if node.lane in (_LABELLED, _POOL)})
    tips: dict[str, str] = {}
    figure, axes = canvas(WIDTH, height)
    figure.set_layout_engine("none")
    axes.set(position=(0, 0, 1, 1), xlim=(0, WIDTH * 72), ylim=(height * 72, 0))
    axes.axis("off")
    scale, places = _layout(sizes, height * 72)
    for column in {node.column for node in sizes}:
        axes.text(_x(column), 13, _COLUMNS[column], color=COLOURS["muted"], fontsize=9, va="baseline")
    for node, y in places.items():
        x, tall = _x(node.column), max(sizes[node] * scale, _LEAST)
        box = Rectangle((x, y), _NODE, tall, facecolor=COLOURS[node.colour], linewidth=0, zorder=3)
        tip(tips, axes.add_patch(box), f"{node.name}: {sizes[node]:,}")
        axes.text(x + _NODE + 4, y + tall / 2, f"{node.name}  {sizes[node]:,}", va="center", fontsize=9, zorder=4)
    _bands(axes, links, places, scale, tips)
    return svg(figure, "flow", tips)


def _layout(sizes: dict[Node, int], room: float) -> tuple[float, dict[Node, float]]:
    """Points an item, so that all fit into `room` points, and the top of each place.

    A lane stands below the other, so that no band has to cross one.
    """
    columns: defaultdict[tuple[str, int], list[Node]] = defaultdict(list)
    for node in sorted(sizes, key=lambda n: n.colour == "muted"):
        columns[node.lane, node.column].append(node)
    lanes = [lane for lane in dict.fromkeys(n.lane for n in sizes) if lane]
    tall = {lane: max(sum(sizes[n] for n in c) for (of, _), c in columns.items() if of == lane) for lane in lanes}
    gaps = {lane: max(len(c) for (of, _), c in columns.items() if of == lane) * _GAP for lane in lanes}
    scale = max(room - _TOP - 4 - sum(gaps.values()), 40) / max(sum(tall.values()), 1)
    tops = {"": _TOP}
    top = _TOP
    for lane in lanes:
        tops[lane] = top
        top += tall[lane] * scale + gaps[lane]
    places: dict[Node, float] = {}
    for (lane, _), column in columns.items():
        y = tops[lane]
        for node in column:
            places[node] = y
            y += max(sizes[node] * scale, _LEAST) + _GAP
    return scale, places


def _x(column: int) -> float:
    return 4 + column * (WIDTH * 72 - 88) / (len(_COLUMNS) - 1)


def _bands(axes: Axes, links: Sequence[Link], places: dict[Node, float], scale: float, tips: dict[str, str]) -> None:
    left, right = dict(places), dict(places)
    for link in sorted(links, key=lambda k: (places[k.source], places[k.target])):
        height = max(link.count * scale, _LEAST)
        x0, x1 = _x(link.source.column) + _NODE, _x(link.target.column)
        y0, y1 = left[link.source], right[link.target]
        left[link.source] += height
        right[link.target] += height
        middle = (x0 + x1) / 2
        points = [(x0, y0), (middle, y0), (middle, y1), (x1, y1)]
        points += [(x1, y1 + height), (middle, y1 + height), (middle, y0 + height), (x0, y0 + height), (x0, y0)]
        codes = [Outline.MOVETO, *[Outline.CURVE4] * 3, Outline.LINETO, *[Outline.CURVE4] * 3, Outline.CLOSEPOLY]
        colour = COLOURS[link.target.colour if link.target.column < 4 else link.source.colour]
        band = PathPatch(Outline(points, codes), facecolor=colour, alpha=0.24, linewidth=0, zorder=2)
        tip(tips, axes.add_patch(band), f"{link.source.lane}: {link.source.name} → {link.target.name}: {link.count:,}")
