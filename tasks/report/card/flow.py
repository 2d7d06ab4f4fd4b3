"""Draw a Sankey diagram of the items in a run, from the data that was read to the training set.

matplotlib's own Sankey class draws single arrows and not columns of nodes, so this module places the nodes and bands.
The diagram needs only counts: `kept + dropped = input` holds in every stage, so items that are not in the next column
were left out.
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
from tasks.report.plots import COLOURS, STYLE, WIDTH, add_tip, canvas, svg
from tasks.storage.stage_record import StageRecord

_LANE_INCHES = 1.8
_MARGIN_INCHES = 0.7
"""Height of the diagram without its lanes."""
# in points
_HEADINGS = 24.0
_NODE_WIDTH = 9.0
_NODE_GAP = 17.0
_THINNEST_BAND = 0.8
_COLUMNS = ("read", "checked", "pseudo-labels", "emitted, by origin", "the set")
_LABELLED = "labelled"
_POOL = "pool"
_OF_LABELLED = (Origin.REVIEW, Origin.CORRECTION, Origin.GIVEN)
_LANES = dict.fromkeys((o.value for o in _OF_LABELLED), _LABELLED) | {Origin.PSEUDO.value: _POOL}


@dataclass(frozen=True)
class Node:
    """A group of items in one column of the diagram."""

    name: str
    lane: str
    column: int
    """Index in _COLUMNS."""
    colour: str
    """Name of a colour of the page."""


@dataclass(frozen=True)
class Link:
    """The number of items that go from one node to another."""

    source: Node
    target: Node
    count: int


def list_links(facts: Facts) -> list[Link]:
    """Return the links of the run's diagram. The list is empty if the run has read no items."""
    origins, judged_pool = facts.emitted.origins, facts.emitted.judged_pool
    of_labelled = {o: origins[o] - (judged_pool if o is Origin.REVIEW else 0) for o in _OF_LABELLED}
    emitted = {o: Node(o, _LANES.get(o, o), 3, ORIGINS.get(o, "muted")) for o in (*ORIGINS, *origins)}
    links: list[Link] = []
    if (record := facts.records.get("samples/labelled")) is not None:
        usable = Node("usable", _LABELLED, 1, "accent")
        links += _list_reading(record, usable)
        links += [Link(usable, emitted[o], count) for o, count in of_labelled.items()]
        if "emit" in facts.records:
            rest = record.kept - sum(of_labelled.values())
            links.append(Link(usable, Node("left out", _LABELLED, 3, "muted"), rest))
    if (record := facts.records.get("samples/unlabelled")) is not None:
        usable, trusted = Node("usable", _POOL, 1, "second"), Node("trusted", _POOL, 2, "second")
        links += _list_reading(record, usable)
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


def _list_reading(record: StageRecord, usable: Node) -> list[Link]:
    read = Node(usable.lane, usable.lane, 0, usable.colour)
    refused = Node("refused", usable.lane, 1, "muted")
    return [Link(read, usable, record.kept), Link(read, refused, record.dropped)]


@matplotlib.rc_context(STYLE)
def draw_flow(links: Sequence[Link]) -> str:
    """Return the diagram as SVG. Each band has a tooltip that says which items it shows."""
    sizes = {
        node: max(sum(k.count for k in links if k.source == node), sum(k.count for k in links if k.target == node))
        for node in dict.fromkeys(node for link in links for node in (link.source, link.target))
    }
    height = _MARGIN_INCHES + _LANE_INCHES * len({node.lane for node in sizes if node.lane in (_LABELLED, _POOL)})
    tips: dict[str, str] = {}
    figure, axes = canvas(WIDTH, height)
    figure.set_layout_engine("none")
    axes.set(position=(0, 0, 1, 1), xlim=(0, WIDTH * 72), ylim=(height * 72, 0))
    axes.axis("off")
    scale, places = _place_nodes(sizes, height * 72)
    for column in {node.column for node in sizes}:
        axes.text(_column_x(column), 13, _COLUMNS[column], color=COLOURS["muted"], fontsize=9, va="baseline")
    for node, y in places.items():
        x, tall = _column_x(node.column), max(sizes[node] * scale, _THINNEST_BAND)
        box = Rectangle((x, y), _NODE_WIDTH, tall, facecolor=COLOURS[node.colour], linewidth=0, zorder=3)
        add_tip(tips, axes.add_patch(box), f"{node.name}: {sizes[node]:,}")
        axes.text(x + _NODE_WIDTH + 4, y + tall / 2, f"{node.name}  {sizes[node]:,}", va="center", fontsize=9, zorder=4)
    _draw_bands(axes, links, places, scale, tips)
    return svg(figure, "flow", tips)


def _place_nodes(sizes: dict[Node, int], height: float) -> tuple[float, dict[Node, float]]:
    """Return the height of one item in points, chosen so that all fit into `height`, and the top of each node.

    Each lane is below the one before it, so that bands of different lanes do not cross before the last column.
    """
    columns: defaultdict[tuple[str, int], list[Node]] = defaultdict(list)
    for node in sorted(sizes, key=lambda n: n.colour == "muted"):
        columns[node.lane, node.column].append(node)
    lanes = [lane for lane in dict.fromkeys(n.lane for n in sizes) if lane]
    tall = {lane: max(sum(sizes[n] for n in c) for (of, _), c in columns.items() if of == lane) for lane in lanes}
    gaps = {lane: max(len(c) for (of, _), c in columns.items() if of == lane) * _NODE_GAP for lane in lanes}
    scale = max(height - _HEADINGS - 4 - sum(gaps.values()), 40) / max(sum(tall.values()), 1)
    tops = {"": _HEADINGS}
    top = _HEADINGS
    for lane in lanes:
        tops[lane] = top
        top += tall[lane] * scale + gaps[lane]
    places: dict[Node, float] = {}
    for (lane, _), column in columns.items():
        y = tops[lane]
        for node in column:
            places[node] = y
            y += max(sizes[node] * scale, _THINNEST_BAND) + _NODE_GAP
    return scale, places


def _column_x(column: int) -> float:
    return 4 + column * (WIDTH * 72 - 88) / (len(_COLUMNS) - 1)


def _draw_bands(
    axes: Axes, links: Sequence[Link], places: dict[Node, float], scale: float, tips: dict[str, str]
) -> None:
    left, right = dict(places), dict(places)
    for link in sorted(links, key=lambda k: (places[k.source], places[k.target])):
        height = max(link.count * scale, _THINNEST_BAND)
        x0, x1 = _column_x(link.source.column) + _NODE_WIDTH, _column_x(link.target.column)
        y0, y1 = left[link.source], right[link.target]
        left[link.source] += height
        right[link.target] += height
        middle = (x0 + x1) / 2
        points = [(x0, y0), (middle, y0), (middle, y1), (x1, y1)]
        points += [(x1, y1 + height), (middle, y1 + height), (middle, y0 + height), (x0, y0 + height), (x0, y0)]
        codes = [Outline.MOVETO, *[Outline.CURVE4] * 3, Outline.LINETO, *[Outline.CURVE4] * 3, Outline.CLOSEPOLY]
        colour = COLOURS[link.target.colour if link.target.column < 4 else link.source.colour]
        band = PathPatch(Outline(points, codes), facecolor=colour, alpha=0.24, linewidth=0, zorder=2)
        add_tip(
            tips, axes.add_patch(band), f"{link.source.lane}: {link.source.name} → {link.target.name}: {link.count:,}"
        )
