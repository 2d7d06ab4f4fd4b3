"""The report of a correction: one self-contained page (page.html), and every figure of it as JSON."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.correction.decide import Decisions
from tasks.report.correction.charts import budget_chart, reliability_chart, suspicion_chart
from tasks.report.correction.figures import measure
from tasks.storage.files import write_bytes
from tasks.storage.html import format_figure, html_environment
from tasks.storage.json_lines import write_json

PAGE, FIGURES = "report.html", "report.json"
"""The files of a report's folder."""
_TEMPLATES = Path(__file__).parent


def write_report(
    decisions: Decisions,
    folder: Path,
    *,
    title: str,
    costs: Mapping[str, float],
    excluded: Mapping[str, str],
    repeats: int,
) -> None:
    """Write `folder`/report.html and report.json (atomically).

    `costs` are shown as they are named; `excluded` is item id → why no decision was made about it; `repeats` is how
    many predictions per item the students' probabilities are the mean of.
    """
    figures = {"title": title, "costs": costs, "excluded": excluded, "repeats": repeats} | measure(decisions)
    write_bytes(folder / PAGE, render_page(figures).encode())
    write_json(folder / FIGURES, figures)


def render_page(figures: Mapping[str, Any]) -> str:
    """Return the whole HTML page."""
    excluded: dict[str, list[str]] = defaultdict(list)
    for identity, reason in figures["excluded"].items():
        excluded[reason].append(identity)
    items_of_pair = {(pair["given"], pair["proposed"]): pair["items"] for pair in figures["pairs"]}
    unlabelled = [None] if any(proposed is None for _, proposed in items_of_pair) else []
    page = html_environment(_TEMPLATES, _TEMPLATES.parent).get_template("page.html")
    return page.render(
        figures,
        proposed=[*figures["labels"], *unlabelled],
        items_of_pair=items_of_pair,
        formatted_costs=[(name, format_figure(value)) for name, value in figures["costs"].items()],
        excluded_by_reason=sorted(excluded.items(), key=lambda pair: -len(pair[1])),
        suspicion_chart=suspicion_chart,
        reliability_chart=reliability_chart,
        budget_chart=budget_chart,
    )
