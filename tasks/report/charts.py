"""Draw the card's charts as SVG."""

from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from tasks.evaluation.scores import Score
from tasks.records import Origin
from tasks.report.plots import (
    ACCENT,
    COLOURS,
    GRID,
    MUTED,
    STYLE,
    WARN,
    WIDTH,
    add_tip,
    canvas,
    shorten,
    show_whole_numbers,
    svg,
)

ORIGINS = {
    Origin.REVIEW.value: "good",
    Origin.CORRECTION.value: "warn",
    Origin.GIVEN.value: "accent",
    Origin.PSEUDO.value: "second",
    Origin.MIX.value: "third",
}
"""Maps the origin of a label to its colour in all charts of the card."""


@matplotlib.rc_context(STYLE)
def draw_balance(before: Mapping[str, int], after: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> str:
    """Draw two bars per label: the usable labelled items, and the emitted examples by origin."""
    figure, axes = canvas(WIDTH, 0.8 + 0.36 * len(labels))
    places = range(len(labels))
    tips: dict[str, str] = {}
    given = axes.barh([p - 0.19 for p in places], [before.get(x, 0) for x in labels], 0.34, color=MUTED, alpha=0.6)
    given.set_label("before: given labels")
    for bar, label in zip(given.patches, labels, strict=True):
        add_tip(tips, bar, f"{label}: {before.get(label, 0):,} before")
    left = [0] * len(labels)
    for origin, colour in ORIGINS.items():
        counts = [after.get(x, {}).get(origin, 0) for x in labels]
        if not any(counts):
            continue
        bars = axes.barh([p + 0.19 for p in places], counts, 0.34, left=left, color=COLOURS[colour])
        bars.set_label(f"after: {origin}")
        for bar, label, count in zip(bars.patches, labels, counts, strict=True):
            add_tip(tips, bar, f"{label}: {count:,} from {origin}")
        left = [a + b for a, b in zip(left, counts, strict=True)]
    axes.set(yticks=list(places), yticklabels=[shorten(x) for x in labels], ylim=(len(labels) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    show_whole_numbers(axes, "x")
    figure.legend(loc="outside upper left", ncols=6, borderpad=0.1, handlelength=1.1, columnspacing=1.4)
    return svg(figure, "balance", tips)


@matplotlib.rc_context(STYLE)
def draw_confidence(counts: Sequence[tuple[int, int]], what: str, name: str) -> str:
    """Draw a histogram of pseudo-labels over `what`, from 0 to 1. `counts` has a pair (all, kept) for each bar."""
    figure, axes = canvas(WIDTH / 2, 2.9)
    width, tips = 1 / len(counts), dict[str, str]()
    for label, colour, alpha, column in (("left out", MUTED, 0.55, 0), ("kept", COLOURS["second"], 1.0, 1)):
        for n, found in enumerate(counts):
            bar = axes.bar(n * width, found[column], width * 0.88, align="edge", color=colour, alpha=alpha)
            bar.set_label(label if n == 0 else "_")
            text = f"{n * width:.0%} to {(n + 1) * width:.0%}: {found[0]:,} labels, {found[1]:,} kept"
            add_tip(tips, bar.patches[0], text)
    axes.set(xlim=(0, 1), xlabel=what, ylabel="pseudo-labels")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    show_whole_numbers(axes, "y")
    figure.legend(loc="outside upper left", ncols=2, borderpad=0.1, handlelength=1.1)
    return svg(figure, name, tips)


@matplotlib.rc_context(STYLE)
def draw_calibration(points: Sequence[tuple[float, float, int]]) -> str:
    """Draw the teacher's confidence against expected precision. A point is (own, expected, number of labels)."""
    figure, axes = canvas(WIDTH / 2, 2.9)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as the teacher says")
    axes.plot([p[0] for p in points], [p[1] for p in points], color=ACCENT, linewidth=1.4, label="as calibrated")
    tips: dict[str, str] = {}
    most = max(n for _, _, n in points)
    for own, expected, n in points:
        (dot,) = axes.plot([own], [expected], "o", color=ACCENT, markersize=3 + 6 * (n / most) ** 0.5)
        add_tip(tips, dot, f"{n:,} labels: the teacher says {own:.1%}, expected are {expected:.1%}")
    axes.set(xlim=(-0.02, 1.03), ylim=(-0.02, 1.03))
    axes.set(xlabel="the teacher's own confidence", ylabel="expected precision")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(loc="outside upper left", ncols=2, borderpad=0.1, handlelength=1.6)
    return svg(figure, "calibration", tips)


@matplotlib.rc_context(STYLE)
def draw_lengths(lengths: Counter[int]) -> str:
    """Draw a histogram of the reasons' lengths in characters."""
    figure, axes = canvas(WIDTH / 2, 2.9)
    longest = max(lengths)
    step = max(1, -(-longest // 30))
    binned: Counter[int] = Counter()
    for length, count in lengths.items():
        binned[length // step * step] += count
    axes.bar(list(binned), list(binned.values()), step * 0.88, align="edge", color=ACCENT)
    axes.set(xlim=(0, longest + step), xlabel="characters", ylabel="reasons")
    show_whole_numbers(axes, "x")
    show_whole_numbers(axes, "y")
    return svg(figure, "lengths")


@matplotlib.rc_context(STYLE)
def draw_confusion(pairs: Mapping[tuple[str, str | None], int], no_label: str) -> str:
    """Draw a matrix of changed labels: rows are given labels, columns new ones, `no_label` is for dropped items."""
    given = sorted({g for g, _ in pairs})
    new = sorted({n for _, n in pairs if n is not None}) + ([no_label] if any(n is None for _, n in pairs) else [])
    most = max(pairs.values())
    figure, axes = canvas(min(WIDTH, 2.8 + 0.44 * len(new)), 1.5 + 0.3 * len(given))
    figure.set_layout_engine("constrained", w_pad=0.3)  # a browser's fonts are wider than those measured here
    tips: dict[str, str] = {}
    for (old, now), count in pairs.items():
        x, y = new.index(no_label if now is None else now), given.index(old)
        cell = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=WARN, alpha=0.18 + 0.6 * count / most)
        add_tip(tips, axes.add_patch(cell), f"{old} → {now or no_label}: {count:,}")
        axes.text(x, y, f"{count:,}", ha="center", va="center")
    axes.grid(visible=False)
    axes.set(xlim=(-0.5, len(new) - 0.5), ylim=(len(given) - 0.5, -0.5))
    axes.set_xticks(range(len(new)), [shorten(x) for x in new], rotation=40, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(given)), [shorten(x) for x in given])
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_ylabel("given")
    axes.set_xlabel("new")
    axes.xaxis.set_label_position("top")
    for edge in axes.spines.values():
        edge.set_visible(False)
    axes.set_xticks([x - 0.5 for x in range(1, len(new))], minor=True)
    axes.set_yticks([y - 0.5 for y in range(1, len(given))], minor=True)
    axes.grid(which="minor", color=GRID)
    axes.tick_params(which="minor", length=0)
    return svg(figure, "confusion", tips)


@matplotlib.rc_context(STYLE)
def draw_accuracy(scores: tuple[Score, ...]) -> str:
    """Draw each variant's accuracy with its interval, and a fainter dot for the student of each seed."""
    figure, axes = canvas(WIDTH, 0.7 + 0.36 * len(scores))
    tips: dict[str, str] = {}
    for place, s in enumerate(scores):
        axes.plot([s.accuracy.low, s.accuracy.high], [place, place], color=COLOURS["accent"], linewidth=2)
        axes.plot(s.by_seed, [place] * len(s.by_seed), "o", color=COLOURS["muted"], markersize=4, alpha=0.6)
        (dot,) = axes.plot([s.accuracy.value], [place], "o", color=COLOURS["accent"], markersize=8)
        add_tip(tips, dot, f"{s.variant}: {s.accuracy}")
    axes.set(yticks=range(len(scores)), yticklabels=[s.variant for s in scores], ylim=(len(scores) - 0.4, -0.6))
    axes.set_xlabel("held-out accuracy")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.spines["left"].set_visible(False)
    return svg(figure, "students", tips)
