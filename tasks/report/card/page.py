"""The card's page: its sections in order. Text from data gets in through `Markup.format` only, which escapes it."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from tasks.rationales.diversity import Variety
from tasks.report.card.counts import (
    balance,
    confidence,
    corrections,
    costs,
    drops,
    flow_table,
    models,
    reasons,
    recipe,
)
from tasks.report.card.evaluation import students
from tasks.report.card.facts import Facts
from tasks.report.card.flow import flow_chart, links_of
from tasks.report.card.items import change_item, cut, dropped_item, example_item, grid
from tasks.report.card.prompts import RenderedPrompt
from tasks.report.card.warnings import TRANSDUCTIVE, is_transductive, warnings_of
from tasks.report.fonts import PAGE_FONTS, font_faces, legible
from tasks.storage.html import format_count

_NOTHING = Markup("")
_PROMPT = 20_000
_ORIGINS = {
    "review": "Label by a person's verdict",
    "correction": "Label corrected without a person",
    "given": "Label as given",
    "pseudo": "Pseudo-label of the teacher",
    "mix": "General-purpose mix",
}


@dataclass(frozen=True)
class Card:
    """What the page is made of."""

    title: str
    licence: str | None
    language: str | None
    """Of the data; None: unknown."""
    facts: Facts
    diversity: Variety | None
    """Of the emitted reasons; None where there are none."""
    prompts: tuple[RenderedPrompt, ...]


def page_of(card: Card) -> str:
    """The whole HTML page, with the fonts that it needs."""
    frame = Path(__file__).with_name("page.html").read_text("utf-8")
    values = {"title": str(Markup.escape(legible(card.title))), "body": legible(_body(card))}
    shown = frame + values["title"] + values["body"]
    values |= {"families": PAGE_FONTS, "fonts": font_faces(shown, card.language or "zh")}
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], frame)


def _body(card: Card) -> Markup:
    sections = [(name, content) for name, content in _sections(card) if content]
    links = _NOTHING.join(
        Markup('<a href="#{}">{}</a>').format(_anchor(name), name) for name in ("Summary", *(n for n, _ in sections))
    )
    first = Markup('<p class="transductive">{}</p>').format(TRANSDUCTIVE) if is_transductive(card.facts) else _NOTHING
    shape = Markup('{}<div class="frame"><nav aria-label="Contents"><b>Contents</b>{}</nav><main>{}{}{}</main></div>')
    parts = (Markup('<section id="{}"><h2>{}</h2>{}</section>').format(_anchor(n), n, c) for n, c in sections)
    return shape.format(first, links, _head(card), _NOTHING.join(parts), _foot())


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def _sections(card: Card) -> Iterator[tuple[str, Markup]]:
    facts = card.facts
    links = links_of(facts)
    yield "Flow", (_chart(flow_chart(links)) if links else _NOTHING) + flow_table(facts)
    yield "Students", students(facts.evaluation, transductive=is_transductive(facts))
    yield "Class balance", balance(facts)
    yield "Confidence", confidence(facts)
    yield "Corrections", corrections(facts)
    if facts.changes.drawn:
        yield "Changed labels", _changed(facts)
    yield "Reasons", reasons(facts, card.diversity)
    yield "Examples", _examples(facts)
    yield "Left out", drops(facts) + _dropped(facts)
    yield "Cost and time", costs(facts)
    yield "Models", models(facts)
    yield "Prompts", _prompts(card.prompts)
    yield "Licence", _licence(card.licence)
    yield "Recipe", recipe(facts)


def _chart(element: str) -> Markup:
    return Markup('<div class="chartbox">{}</div>').format(Markup(element))


def _head(card: Card) -> Markup:
    facts = card.facts
    finished = max((r.finished_at for r in facts.records.values()), default=time.time())
    made = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(finished)).lstrip("0")
    lead = Markup('<h1 id="summary">{}</h1><p class="lead">{}, {}. Licence: {}. Made by labelstill, {}.</p>').format(
        card.title,
        format_count(facts.emitted.count, "training example"),
        "free text" if facts.emitted.labels is None else format_count(len(facts.emitted.labels), "label"),
        card.licence or "not named",
        made,
    )
    cautions = warnings_of(facts, card.licence, card.diversity)
    box = Markup('<div class="warnings" role="note"><b>Read this first</b><ul>{}</ul></div>').format(
        _NOTHING.join(Markup("<li>{}</li>").format(w) for w in cautions)
    )
    tiles = _NOTHING.join(_tile(*t) for t in _tiles(facts))
    return lead + (box if cautions else _NOTHING) + Markup('<div class="tiles">{}</div>').format(tiles)


def _tile(name: str, value: str, more: str) -> Markup:
    return Markup(
        '<div class="tile"><div class="name">{}</div><div class="value">{}</div><div class="more">{}</div></div>'
    ).format(name, value, more)


def _tiles(facts: Facts) -> Iterator[tuple[str, str, str]]:
    emitted, records = facts.emitted, facts.records
    subsets = {subset: 0 for _, subset in sorted(emitted.parts)}
    for (_, subset), count in emitted.parts.items():
        subsets[subset] += count
    yield "training examples", f"{emitted.count:,}", ", ".join(f"{n:,} {name}" for name, n in subsets.items())
    if (record := records.get("correction")) is not None:
        share = facts.changes.pairs.total() / max(record.read, 1)
        yield (
            "labels changed",
            f"{facts.changes.pairs.total():,}",
            f"{share:.1%} of {format_count(record.read, 'item')}",
        )
    if (record := records.get("pseudo_labels")) is not None:
        yield "pseudo-labels kept", f"{record.kept:,}", f"of {format_count(record.read, 'item')} in the pool"
        if (expected := facts.figure("pseudo_labels", "expected precision")) is not None and record.kept:
            low, high = (facts.figure("pseudo_labels", name) for name in ("lower", "upper"))
            interval = "" if low is None or high is None else f"{low:.1%} to {high:.1%}"
            yield "their expected precision", f"{expected:.1%}", interval or "the teacher's own word"
    if emitted.with_reason:
        yield "with a reason", f"{emitted.with_reason:,}", f"{emitted.with_reason / emitted.count:.0%} of the examples"
    seconds = sum(r.seconds for r in records.values())
    asked = sum(r.costs.asked + r.costs.reused for r in records.values())
    priced = [r.costs.cost for r in records.values() if r.costs.cost is not None]
    cost = f", cost {sum(priced):,.2f}" if priced else ""
    yield "time", _duration(seconds), f"{format_count(asked, 'answer')} of models{cost}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _changed(facts: Facts) -> Markup:
    shown, total = len(facts.changes.drawn), facts.changes.pairs.total()
    which = "All changed labels" if shown == total else f"{shown} drawn of {total:,} changed labels"
    note = Markup('<p class="note">{}, the commonest changes first.</p>').format(which)
    return note + grid(change_item(row, facts.contents.of(row, "correction")) for row in facts.changes.drawn)


def _examples(facts: Facts) -> Markup:
    parts: list[Markup] = []
    for origin, rows in facts.emitted.examples.items():
        count = facts.emitted.origins[origin]
        parts.append(Markup("<h3>{} ({:,})</h3>").format(_ORIGINS.get(origin, origin), count))
        parts.append(grid(example_item(row, facts.contents.of(row, "emit")) for row in rows))
    note = Markup('<p class="note">Drawn evenly, with a fixed seed, from each origin of labels.</p>')
    return note + _NOTHING.join(parts) if parts else _NOTHING


def _dropped(facts: Facts) -> Markup:
    """Items of each reason, folded up by stage."""
    stages: defaultdict[str, list[Markup]] = defaultdict(list)
    for found in facts.drops:
        name = Markup("<h3>{} ({:,})</h3>").format(found.reason.replace("_", " "), found.count)
        rows = (dropped_item(row, facts.contents.of(row, found.stage, found.reason)) for row in found.drawn)
        stages[found.stage].append(name + grid(rows))
    shape = Markup("<details><summary>{}: items of each reason</summary>{}</details>")
    return _NOTHING.join(shape.format(stage, _NOTHING.join(parts)) for stage, parts in stages.items())


def _prompts(prompts: Sequence[RenderedPrompt]) -> Markup:
    if not prompts:
        return Markup('<p class="note">Not known here: write the card with the pack that the run was made with.</p>')
    note = Markup('<p class="note">As they are rendered for an item of this run; images stand as {}.</p>')
    return note.format("<image>") + _NOTHING.join(map(_prompt, prompts))


def _prompt(prompt: RenderedPrompt) -> Markup:
    answer = Markup("<h4>taught answer</h4><pre>{}</pre>").format(prompt.answer) if prompt.answer else _NOTHING
    return Markup('<details class="prompt"><summary>{} ({:,} characters)</summary><pre>{}</pre>{}</details>').format(
        prompt.name, len(prompt.text), cut(prompt.text, _PROMPT), answer
    )


def _licence(licence: str | None) -> Markup:
    return Markup("<p>{}</p>").format(licence or "Not named; the configuration names it (licence, under emit).")


def _foot() -> Markup:
    return Markup(
        "<footer>This page loads nothing: its pictures, charts and fonts are in it. Chinese, Japanese and Korean text "
        "is set in Noto Sans CJK, symbols in DejaVu Sans; letters of scripts that neither has are drawn by the "
        "reader's own fonts. The run's files are described in artifacts/README.md.</footer>"
    )
