"""The report of a correction: one self-contained page (page.html), and every figure of it as JSON."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tasks.correction.decide import Decisions
from tasks.report.correction.charts import budget_chart, reliability_chart, suspicion_chart
from tasks.report.correction.figures import Figures, measure
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
    figures = measure(decisions, title=title, costs=costs, excluded=excluded, repeats=repeats)
    write_bytes(folder / PAGE, render_page(figures).encode())
    write_json(folder / FIGURES, asdict(figures) | {"gate_why": explain_gate(figures)})


def render_page(figures: Figures) -> str:
    """Return the whole HTML page."""
    excluded: dict[str, list[str]] = defaultdict(list)
    for identity, reason in figures.excluded.items():
        excluded[reason].append(identity)
    items_of_pair = {(p.given, p.proposed): p.items for p in figures.pairs}
    unlabelled = [None] if any(proposed is None for _, proposed in items_of_pair) else []
    page = html_environment(_TEMPLATES, _TEMPLATES.parent).get_template("page.html")
    return page.render(
        f=figures,
        gate_why=explain_gate(figures),
        proposed=[*figures.labels, *unlabelled],
        items_of_pair=items_of_pair,
        costs=[(name, format_figure(value)) for name, value in figures.costs.items()],
        excluded=sorted(excluded.items(), key=lambda pair: -len(pair[1])),
        suspicion_chart=suspicion_chart,
        reliability_chart=reliability_chart,
        budget_chart=budget_chart,
    )


def explain_gate(figures: Figures) -> str:
    """Return in a sentence whether the gate is open, and why."""
    gate = figures.gate
    if figures.verdicts == 0:
        return "The gate is closed: no verdict says yet whether the proposals are right, so nothing is changed."
    if gate.wins + gate.losses == 0:
        if not gate.neither:
            return "The gate is closed: no judged item would have been changed, so no label changes without a person."
        return (
            "The gate is closed: no judged item that would have been changed speaks for the change or against it (in "
            f"{gate.neither} such items neither label was right), so no label changes without a person."
        )
    what = (
        f"of the judged items that would have been changed, the candidate was right in {gate.wins}, the given label in "
        f"{gate.losses} and neither in {gate.neither}, and the lower bound {gate.lower:.2f} of the share of wins is"
    )
    if gate.open:
        return (
            f"The gate is open: {what} above the level {gate.level:.2f}, so a label whose candidate is likelier "
            "changes without a person."
        )
    return f"The gate is closed: {what} not above the level {gate.level:.2f}, so no label changes without a person."
