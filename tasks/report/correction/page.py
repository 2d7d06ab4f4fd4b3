"""The page of a correction's report: its sections in order.

Text from data gets into the page through `Markup.format` only, which escapes it (markupsafe is what Jinja's autoescape
escapes with; templates are the business of tasks/prompts/prompter.py alone).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from tasks.report.correction.charts import budget_chart, reliability_chart, suspicion_chart
from tasks.report.correction.cleanlab_compare import Comparison
from tasks.report.correction.figures import Figures, Share
from tasks.report.correction.tables import class_table, excluded_list, pairs, suspect_table, table
from tasks.storage.html import format_count

_NOTHING = Markup("")


def page_of(figures: Figures, comparison: Comparison | None) -> str:
    """The whole HTML page."""
    frame = Path(__file__).with_name("page.html").read_text("utf-8")
    values = {"title": str(Markup.escape(figures.title)), "body": "\n".join(_sections(figures, comparison))}
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], frame)


def _sections(figures: Figures, comparison: Comparison | None) -> Iterator[Markup]:
    yield _head(figures)
    yield _tiles(figures)
    yield _gate(figures)
    yield _section("What changes, and what is left", _changes(figures))
    yield Markup('<div class="pair">{}{}</div>').format(
        _section("Suspicion", _suspicion(figures)),
        _section("Can the probabilities be believed?", _reliability(figures)),
    )
    yield _section("How well the flags do", _quality(figures))
    yield Markup('<div class="pair">{}{}</div>').format(
        _section("What further reviews would mend", _budget(figures)), _section("What it cost", _costs(figures))
    )
    yield _section("Given → proposed, among flagged items", pairs(figures))
    yield _section("Classes", class_table(figures))
    yield _section("The most suspicious items", suspect_table(figures))
    yield _section("Excluded", excluded_list(figures))
    yield _section("Beside cleanlab", _cleanlab(comparison))


def gate_sentence(figures: Figures) -> str:
    """Open or closed, and why."""
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


def _state(figures: Figures) -> str:
    return "open" if figures.gate_open else "closed"


def _head(figures: Figures) -> Markup:
    runs = "one prediction an item" if figures.repeats == 1 else f"the mean of {figures.repeats} predictions an item"
    return Markup('<h1>{}</h1><p class="lead">{}, {}; {}, out of fold.</p>').format(
        figures.title, format_count(figures.items, "item"), format_count(len(figures.labels), "label"), runs
    )


def _tiles(figures: Figures) -> Markup:
    changes = figures.changes
    tiles = [
        _tile("wrong given labels", *_estimate(figures, "wrong")),
        _tile("precision of flags", *_estimate(figures, "precision")),
        _tile("recall of flags", *_estimate(figures, "recall")),
        _tile("flagged", f"{figures.flagged:,}", f"{figures.flagged / figures.items:.1%} of the items"),
        _tile(
            "labels changed", f"{changes.by_verdict + changes.unreviewed:,}",
            f"{changes.by_verdict:,} by verdict, {changes.unreviewed:,} without; {changes.dropped:,} dropped",
        ),
        _tile("gate", _state(figures), f"{figures.gate.wins} wins, {figures.gate.losses} losses"),
    ]  # fmt: skip
    return Markup('<div class="tiles">{}</div>').format(_NOTHING.join(tiles))


def _tile(name: str, value: str, more: str) -> Markup:
    shape = Markup(
        '<div class="tile"><div class="name">{}</div><div class="value">{}</div><div class="more">{}</div></div>'
    )
    return shape.format(name, value, more)


def _estimate(figures: Figures, name: str) -> tuple[str, str]:
    found = figures.estimates.get(name)
    if found is None:
        return "–", "too few verdicts to say"
    return f"{found.value:.1%}", f"{found.low:.1%} to {found.high:.1%}"


def _gate(figures: Figures) -> Markup:
    lines = [Markup("<p><strong>{}</strong></p>").format(gate_sentence(figures))]
    if not figures.calibrated:
        heard = f"only {figures.verdicts} verdicts are" if figures.verdicts > 1 else "only one verdict is"
        if not figures.verdicts:
            heard = "no verdict of a person is"
        lines.append(
            Markup(
                "<p>The probabilities are not calibrated: {} known. They are what such figures meant elsewhere; flags "
                "follow the plain margin between candidate and given label. Review a sample of the queue, then run "
                "again.</p>"
            ).format(heard)
        )
    return Markup('<section class="verdict {}">{}</section>').format(_state(figures), _NOTHING.join(lines))


def _changes(figures: Figures) -> Markup:
    changes, actions = figures.changes, figures.actions
    text = Markup(
        "<p>Expected to be wrong: about <strong>{:,.0f}</strong> of the {:,} given labels, and about "
        "<strong>{:,.0f}</strong> of the final ones{}.</p>"
    ).format(
        figures.expected_wrong_given, figures.items, figures.expected_wrong_left,
        "" if figures.calibrated else ", by probabilities that are not calibrated",
    )  # fmt: skip
    rows = [
        ("kept", actions["keep"], "not flagged, or confirmed by a verdict"),
        ("waiting for review", actions["review"], "flagged; the given label stays until a person has looked"),
        ("changed by a verdict", changes.by_verdict, "the person's label stands"),
        ("dropped by a verdict", changes.dropped, "none of the labels is right"),
        ("changed without a person", changes.unreviewed, _unreviewed(figures)),
    ]
    return text + table(("outcome", "items", ""), [(a, f"{b:,}", c) for a, b, c in rows], "tnt", "narrow")


def _unreviewed(figures: Figures) -> str:
    changes = figures.changes
    if not changes.unreviewed:
        return "none"
    return (
        f"expected: {changes.wrong_to_right:,.1f} wrong → right, {changes.right_to_wrong:,.1f} right → wrong, "
        f"{changes.wrong_to_wrong:,.1f} wrong → wrong"
    )


def _suspicion(figures: Figures) -> Markup:
    if figures.threshold is not None:
        rule = f"Items are flagged from {figures.threshold:.0%} on"
        rule += ", and where the teacher finds no label right" if figures.teacher_calls else ""
        rule += "; a verdict overrules that."
    elif figures.calibrated:
        rule = "No threshold can be read from the items that no person has judged."
    else:
        rule = "Flags follow the margin between candidate and given label, not this figure, until it is calibrated."
    return Markup('<p class="note">{}</p>{}').format(
        rule, Markup(suspicion_chart(figures.histogram, figures.threshold))
    )


def _reliability(figures: Figures) -> Markup:
    if not figures.verdicts:
        return Markup('<p class="note">There is no verdict to compare the probabilities with.</p>')
    text = (
        f"{format_count(figures.verdicts, 'verdict')}, each against a model fitted without it. The judged items are a "
        "chosen sample, rich in doubtful ones: it shows how far a probability can be believed, not what share of all "
        "labels is wrong."
    )
    return Markup('<p class="note">{}</p>{}').format(text, Markup(reliability_chart(figures.reliability)))


def _quality(figures: Figures) -> Markup:
    if not figures.calibrated:
        return Markup('<p class="note">Too few verdicts to estimate or measure precision and recall.</p>')
    rows: list[tuple[str, str, str, str]] = []
    for name, measured in (("precision", figures.measured_precision), ("recall", figures.measured_recall)):
        found = figures.estimates.get(name)
        estimate = "–" if found is None else f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"
        rows.append(
            (name, estimate, _measured(measured), "" if measured is None else f"{measured.hits} of {measured.of}")
        )
    text = (
        "Estimated: over all items, from their calibrated probabilities. Measured: on "
        f"{format_count(figures.audited_verdicts, 'audited item')} with a verdict, each flagged by a model fitted "
        "without it; as these are a chosen sample, rich in doubtful ones, their figures differ from those of all items."
    )
    heads = ("", "estimated, all items", "measured, audited items", "")
    return Markup('<p class="note">{}</p>').format(text) + table(heads, rows, "tnnn", "narrow")


def _measured(found: Share | None) -> str:
    if found is None or found.value is None or found.low is None or found.high is None:
        return "–"
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def _budget(figures: Figures) -> Markup:
    if figures.expected_wrong_left < 0.05:
        return Markup('<p class="note">No wrong label is expected to be left.</p>')
    text = "If each review puts its item right. " + (
        "" if figures.calibrated else "From probabilities that are not calibrated. "
    )
    chart = budget_chart(figures.budget, figures.items - figures.verdicts)
    return Markup('<p class="note">{}</p>{}').format(text, Markup(chart))


def _costs(figures: Figures) -> Markup:
    rows = [
        ("teacher calls", f"{figures.teacher_calls:,}"),
        ("… that gave no label any weight", f"{figures.teacher_without_answer:,}"),
        ("reviews asked of the person", f"{figures.reviews:,}"),
        ("… of these the audit", f"{figures.audited:,}"),
        ("verdicts used", f"{figures.verdicts:,}"),
        ("… of these from before", f"{figures.verdicts_from_before:,}"),
        *((name, _number(value)) for name, value in figures.costs.items()),
    ]
    return table(("", "number"), rows, "tn")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.4g}"


def _cleanlab(comparison: Comparison | None) -> Markup:
    if comparison is None:
        return Markup(
            '<p class="note">cleanlab is not installed here. To see its flags and rankings beside ours, '
            "<code>pip install cleanlab</code> and write this report again.</p>"
        )
    if comparison.failure:
        return Markup('<p class="note">cleanlab could not judge these items: {}</p>').format(comparison.failure)
    heads = ("filter", "cleanlab flags", "we flag", "both")
    flags = table(heads, [(f.name, f.flagged, f.ours, f.both) for f in comparison.filters], "tnnn", "narrow")
    note = Markup('<p class="note">Flags on items without a verdict. Rankings on the {} audited items.</p>').format(
        comparison.audited
    )
    if not comparison.average_precision:
        return note + flags
    rows = [(name, f"{value:.3f}") for name, value in comparison.average_precision.items()]
    return note + flags + Markup("<h3>Rankings</h3>") + table(("", "average precision"), rows, "tn", "narrow")


def _section(name: str, content: Markup) -> Markup:
    return Markup("<section><h2>{}</h2>{}</section>").format(name, content)
