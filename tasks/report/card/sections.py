"""Make the tables and charts of the page's sections. page.html arranges them."""

import time
from collections import Counter, defaultdict

from tasks.evaluation.table import format_points
from tasks.report.card.facts import Facts
from tasks.report.card.flow import draw_flow, list_links
from tasks.report.charts import (
    draw_accuracy,
    draw_balance,
    draw_calibration,
    draw_confidence,
    draw_confusion,
    draw_lengths,
)
from tasks.report.correction.charts import draw_reliability, draw_suspicion
from tasks.report.correction.figures import Bar, Bin, Share
from tasks.storage.stage_record import StageRecord

CHARTED_LABELS = 60
"""Maximum number of labels on the chart of class sizes. The table has all labels."""
_CONFUSION_LABELS = 40
"""Maximum number of labels on each side of the chart of changes. With more, only the table is shown."""
_NO_LABEL = "none of the labels"


Rows = list[tuple[object, ...]]


def list_rows(facts: Facts) -> dict[str, Rows]:
    """Return a dict that maps table name to the rows of the table. If the run lacks the data, there are no rows.

    The columns of `costs` and `labels` differ between runs, so the first row of these tables has the headings.
    """
    diversity = facts.diversity
    most = max((d.count for d in facts.drops), default=1)
    return {
        **_list_stage_rows(list(facts.records.values())),
        **_list_label_rows(facts),
        **_list_student_rows(facts),
        "measures": [] if diversity is None else [
            *((f"distinct-{n}", f"{value:.1%}") for n, value in enumerate(diversity.distinct, 1)),
            ("identical to another reason", f"{diversity.repeated:.1%}"),
        ],
        "openings": [] if diversity is None else [(f"{text} …", count) for text, count in diversity.openings],
        "drops": [(d.stage, d.reason.replace("_", " "), d.count / most, d.count) for d in facts.drops],
    }  # fmt: skip


def _list_stage_rows(records: list[StageRecord]) -> dict[str, Rows]:
    costs = {r.stage: dict(r.costs.rows()) for r in records if r.costs.asked or r.costs.reused}
    names = dict.fromkeys(name for found in costs.values() for name in found)
    measured = next((r.figures for r in records if r.stage == "rationales"), {})
    gate = [name.removesuffix(" before") for name in measured if name.endswith(" before")]
    return {
        "flow": [(r.stage, r.read, r.kept, r.dropped, _list_drops(r.drops), f"{r.seconds:,.0f} s") for r in records],
        "costs": [("", *costs), *((name, *(found.get(name) for found in costs.values())) for name in names)],
        "seconds": [
            *((r.stage, f"{r.seconds:,.1f}") for r in records),
            ("all", f"{sum(r.seconds for r in records):,.1f}"),
        ],
        "models": [(role, name, r.stage) for r in records for role, name in r.models.items()],
        "recipes": [
            (r.stage, time.strftime("%Y-%m-%d %H:%M", time.gmtime(r.finished_at)), r.recipe, r.code) for r in records
        ],
        "inputs": [(r.stage, name, digest) for r in records for name, digest in r.inputs.items()],
        "figures": [(r.stage, name, value) for r in records for name, value in r.figures.items()],
        "gate": [(name, measured[f"{name} before"], measured.get(f"{name} after")) for name in gate],
    }


def _list_drops(drops: dict[str, int]) -> str:
    ranked = sorted(drops.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in ranked[:3])
    return f"{shown}, …" if len(ranked) > 3 else shown or "–"


def _list_label_rows(facts: Facts) -> dict[str, Rows]:
    after = defaultdict(Counter[str], facts.emitted.labels or {})
    origins = sorted({origin for found in after.values() for origin in found})
    pairs = sorted(facts.changes.pairs.items(), key=lambda pair: (-pair[1], str(pair[0])))
    estimates = facts.changes.report.get("estimates", {})
    return {
        "labels": [
            ("label", "before", "after", *(f"from {origin}" for origin in origins)),
            *((x, facts.before[x], after[x].total(), *(after[x][origin] for origin in origins)) for x in facts.labels),
        ],
        "changes": [(given, new or _NO_LABEL, count) for (given, new), count in pairs],
        "estimates": [(n, f"{e['value']:.1%}", f"{e['low']:.1%} to {e['high']:.1%}") for n, e in estimates.items()],
    }


def _list_student_rows(facts: Facts) -> dict[str, Rows]:
    report, shown = facts.evaluation, facts.shown_score
    if report is None or shown is None:
        return {}
    lifts = {x.variant: format_points(x.points) for x in report.lifts}
    return {
        "scores": [
            (s.variant, f"{s.accuracy.value:.1%}", f"{s.accuracy.low:.1%} to {s.accuracy.high:.1%}",
             f"{s.macro_f1.value:.1%}", lifts.get(s.variant), None if s.agreement is None else f"{s.agreement:.0%}")
            for s in report.scores
        ],
        "classes": [
            (c.label, c.items, f"{c.precision:.1%}", f"{c.recall:.1%}", f"{c.f1:.1%}") for c in shown.classes
        ],
    }  # fmt: skip


def draw_charts(facts: Facts) -> dict[str, str]:
    """Return a dict that maps chart name to SVG. A chart is missing if the run lacks the data for it."""
    charts: dict[str, str] = {}
    if links := list_links(facts):
        charts["flow"] = draw_flow(links)
    if facts.evaluation is not None and facts.evaluation.scores:
        charts["accuracy"] = draw_accuracy(facts.evaluation.scores)
    if facts.labels:
        charts["balance"] = draw_balance(facts.before, facts.emitted.labels or {}, facts.labels[:CHARTED_LABELS])
    if own := facts.confidence.own:
        counts = [(s.count, s.kept) for s in own]
        charts["own"] = draw_confidence(counts, "the teacher's own confidence", "own")
    if own and facts.find_figure("pseudo_labels", "calibrated"):
        counts = [(s.count, s.kept) for s in facts.confidence.expected]
        charts["expected"] = draw_confidence(counts, "expected precision", "expected")
        points = [(s.own / s.count, s.expected / s.count, s.count) for s in own if s.count]
        charts["calibration"] = draw_calibration(points)
    report = facts.changes.report
    if bins := report.get("reliability"):
        charts["reliability"] = draw_reliability([Bin(**(b | {"wrong": Share(**b["wrong"])})) for b in bins])
    if bars := report.get("histogram"):
        charts["suspicion"] = draw_suspicion([Bar(**b) for b in bars], report.get("threshold"))
    pairs = facts.changes.pairs
    if pairs and max(len({given for given, _ in pairs}), len({new for _, new in pairs})) <= _CONFUSION_LABELS:
        charts["confusion"] = draw_confusion(pairs, _NO_LABEL)
    if facts.diversity is not None:
        charts["lengths"] = draw_lengths(facts.diversity.lengths)
    return charts
