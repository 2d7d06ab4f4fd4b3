"""Render the card's page. This module computes the values; page.html has the layout and texts."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.evaluation.table import TRANSDUCTIVE
from tasks.report.card.facts import Facts
from tasks.report.card.items import show_item
from tasks.report.card.prompts import RenderedPrompt
from tasks.report.card.sections import CHARTED_LABELS, draw_charts, list_rows
from tasks.report.card.warnings import is_transductive, list_warnings
from tasks.storage.fonts import embed_fonts, make_legible
from tasks.storage.html import format_count, html_environment

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """Everything that the page and the README show. `write_card` creates it."""

    title: str
    licence: str | None
    language: str | None
    """The language of the data, or None if it is unknown."""
    facts: Facts
    prompts: tuple[RenderedPrompt, ...]


def render_page(card: Card) -> str:
    """Return the HTML page with embedded fonts.

    The template is rendered twice. The first time shows which characters the fonts must have.
    """
    template = html_environment(_FOLDER, _FOLDER.parent).get_template("page.html")
    values = _collect_values(card)
    text = make_legible(template.render(values, fonts=()))
    return make_legible(template.render(values, fonts=embed_fonts(text, card.language or "zh")))


def _collect_values(card: Card) -> dict[str, Any]:
    facts = card.facts
    finished = max((r.finished_at for r in facts.records.values()), default=time.time())
    return {
        "card": card,
        "facts": facts,
        "transductive": TRANSDUCTIVE if is_transductive(facts) else "",
        "finished": time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(finished)).lstrip("0"),
        "warnings": list_warnings(facts, card.licence),
        "tiles": list(_list_tiles(facts)),
        "rows": list_rows(facts),
        "charts": draw_charts(facts),
        "charted_labels": CHARTED_LABELS,
        "changed": [
            show_item(row, facts.contents.find(row, "correction"), "by a person" if row["reviewed"] else "by the gate")
            for row in facts.changes.drawn
        ],
        "examples": {
            origin: [show_item(row, facts.contents.find(row, "emit"), row["task"], row["subset"]) for row in rows]
            for origin, rows in facts.emitted.examples.items()
        },
        "left_out": [
            (drops, [show_item(row, facts.contents.find(row, drops.stage, drops.reason)) for row in drops.drawn])
            for drops in facts.drops
        ],
    }


def _list_tiles(facts: Facts) -> Iterator[tuple[str, str, str]]:
    emitted, records = facts.emitted, facts.records
    subsets = Counter[str]()
    for (_, subset), count in sorted(emitted.parts.items()):
        subsets[subset] += count
    yield "training examples", f"{emitted.count:,}", ", ".join(f"{n:,} {name}" for name, n in subsets.items())
    if (record := records.get("correction")) is not None:
        changed = facts.changes.pairs.total()
        share = f"{changed / max(record.read, 1):.1%}"
        yield "labels changed", f"{changed:,}", f"{share} of {format_count(record.read, 'item')}"
    if (record := records.get("pseudo_labels")) is not None:
        yield "pseudo-labels kept", f"{record.kept:,}", f"of {format_count(record.read, 'item')} in the pool"
        expected, low, high = (record.figures.get(name) for name in ("expected precision", "lower", "upper"))
        if expected is not None and record.kept:
            calibrated = low is not None and high is not None
            interval = f"{low:.1%} to {high:.1%}" if calibrated else "the teacher's own estimate"
            yield "their expected precision", f"{expected:.1%}", interval
    if emitted.with_reason:
        yield "with a reason", f"{emitted.with_reason:,}", f"{emitted.with_reason / emitted.count:.0%} of the examples"
    seconds = sum(r.seconds for r in records.values())
    answers = sum(r.costs.asked + r.costs.reused for r in records.values())
    prices = [r.costs.cost for r in records.values() if r.costs.cost is not None]
    cost = f", cost {sum(prices):,.2f}" if prices else ""
    yield "time", _format_duration(seconds), f"{format_count(answers, 'answer')} of models{cost}"


def _format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
