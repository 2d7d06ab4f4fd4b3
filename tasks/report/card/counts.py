"""Sections of the card that are counts: tables and charts."""

import time
from collections import Counter

from markupsafe import Markup

from tasks.dataset.versions import Version
from tasks.rationales.diversity import Variety
from tasks.report.card.facts import Facts
from tasks.report.charts import balance_chart, calibration_chart, confidence_chart, confusion_chart, lengths_chart
from tasks.report.correction.charts import reliability_chart, suspicion_chart
from tasks.report.correction.figures import Bar, Bin, Share
from tasks.report.correction.tables import table
from tasks.storage.html import format_count

_NOTHING = Markup("")
_CHARTED = 60
"""So many labels on a chart; the table has all."""
_PAIRS = 40
"""Labels on a side of the map of changes; with more, the table alone."""
_NO_LABEL = "none of the labels"


def flow_table(facts: Facts) -> Markup:
    """Items in and out of each stage."""
    rows = [
        (r.stage, f"{r.read:,}", f"{r.kept:,}", f"{r.dropped:,}", _top(r.drops), f"{r.seconds:,.0f} s")
        for r in facts.records.values()
    ]
    return table(("stage", "in", "kept", "left out", "why", "time"), rows, "knnntn")


def _top(drops: dict[str, int]) -> str:
    ranked = sorted(drops.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in ranked[:3])
    return f"{shown}, …" if len(ranked) > 3 else shown or "–"


def balance(facts: Facts) -> Markup:
    """Labels of what was given and of what is emitted."""
    after = facts.emitted.labels
    if after is None:
        return Markup('<p class="note">The labels are free text (captions): there are no classes.</p>')
    sizes = Counter({label: found.total() for label, found in after.items()})
    labels = sorted({*facts.before, *sizes}, key=lambda x: (-facts.before[x], -sizes[x], x))
    if not labels:
        return _NOTHING
    origins = sorted({origin for found in after.values() for origin in found})
    rows = [(x, facts.before[x], sizes[x], *(after.get(x, Counter())[o] for o in origins)) for x in labels]
    more = f"The {_CHARTED} largest of {len(labels)} labels; all are in the table. " if len(labels) > _CHARTED else ""
    note = Markup('<p class="note">{}Before: usable labelled items by given label. After: examples of the set.</p>')
    heads = ("label", "before", "after", *(f"from {origin}" for origin in origins))
    counts = table(heads, rows, "t" + "n" * (len(heads) - 1))
    return (
        note.format(more)
        + box(balance_chart(facts.before, after, labels[:_CHARTED]))
        + Markup("<details><summary>All counts</summary>{}</details>").format(counts)
    )


def confidence(facts: Facts) -> Markup:
    """Of the teacher about the pool, and of suspicion about given labels."""
    parts: list[Markup] = []
    own, expected = facts.confidence.own, facts.confidence.expected
    if own:
        note = f"{sum(s.kept for s in own):,} of {sum(s.count for s in own):,} answers are kept.{_expected(facts)}"
        chart = confidence_chart([(s.count, s.kept) for s in own], "the teacher's own confidence", "own")
        parts.append(_part("Pseudo-labels: own confidence", note, chart))
    if expected and facts.figure("pseudo_labels", "calibrated"):
        note = "What each is worth, calibrated on labelled items that the teacher labelled blind."
        chart = confidence_chart([(s.count, s.kept) for s in expected], "expected precision", "expected")
        parts.append(_part("Pseudo-labels: expected precision", note, chart))
        points = [(s.own / s.count, s.expected / s.count, s.count) for s in own if s.count]
        note = (
            "The teacher's own confidence against what is expected of such labels; the larger a dot, the more of them."
        )
        parts.append(_part("Pseudo-labels: reliability", note, calibration_chart(points)))
    report = facts.changes.report
    if bins := [Bin(b["low"], b["high"], b["predicted"], Share(**b["wrong"])) for b in report.get("reliability", [])]:
        note = "P(wrong) of given labels, by models that did not know the verdict, against what people found."
        parts.append(_part("Given labels: reliability", note, reliability_chart(bins)))
    if bars := [Bar(**b) for b in report.get("histogram", [])]:
        note = "How wrong the given labels are held to be, over all labelled items."
        parts.append(_part("Given labels: suspicion", note, suspicion_chart(bars, report.get("threshold"))))
    if not parts:
        return _NOTHING
    shown = _NOTHING.join(Markup("<div>{}</div>").format(p) for p in parts)
    return Markup('<div class="pair">{}</div>').format(shown)


def _expected(facts: Facts) -> str:
    expected, low, high = (facts.figure("pseudo_labels", n) for n in ("expected precision", "lower", "upper"))
    if not expected:
        return ""
    interval = "" if low is None or high is None else f" ({low:.1%} to {high:.1%})"
    return f" Expected precision of the kept ones: {expected:.1%}{interval}."


def _part(name: str, note: str, chart: str) -> Markup:
    return Markup('<h3>{}</h3><p class="note">{}</p>{}').format(name, note, box(chart))


def corrections(facts: Facts) -> Markup:
    """Given → new, as a map and as a table, and what is estimated of wrong labels."""
    if "correction" not in facts.records:
        return _NOTHING
    parts = [Markup("<p>{}</p>").format(facts.changes.report.get("gate_why", ""))]
    estimates = facts.changes.report.get("estimates", {})
    rows = [(f"{n}", f"{e['value']:.1%}", f"{e['low']:.1%} to {e['high']:.1%}") for n, e in estimates.items()]
    if rows:
        parts.append(table(("estimated share", "value", "95 % interval"), rows, "tnn", "narrow"))
    pairs = facts.changes.pairs
    if not pairs:
        return _NOTHING.join([*parts, Markup('<p class="note">No given label was changed.</p>')])
    if max(len({g for g, _ in pairs}), len({n for _, n in pairs})) <= _PAIRS:
        parts.append(box(confusion_chart(pairs, _NO_LABEL)))
    ranked = sorted(pairs.items(), key=lambda pair: (-pair[1], str(pair[0])))
    changes = table(("given", "new", "items"), [(g, n or _NO_LABEL, f"{c:,}") for (g, n), c in ranked], "ttn")
    shape = Markup("<details><summary>{}</summary>{}</details>")
    return _NOTHING.join([*parts, shape.format(format_count(len(pairs), "kind") + " of change", changes)])


def reasons(facts: Facts, diversity: Variety | None) -> Markup:
    """How varied the emitted reasons are, and what the gate measured."""
    if diversity is None:
        return _NOTHING
    d, emitted = diversity, facts.emitted
    whole = "all are measured" if d.reasons == emitted.with_reason else f"measured on {d.reasons:,}, drawn evenly"
    note = Markup('<p class="note">{} have a reason; {}.</p>').format(
        format_count(emitted.with_reason, "example"), whole
    )
    rows = [(f"distinct-{n}", f"{value:.1%}") for n, value in enumerate(d.distinct, 1)]
    rows.append(("word for word as another", f"{d.repeated:.1%}"))
    measures = table(("measure", "value"), rows, "tn")
    openings = table(("shared opening", "reasons"), [(f"{text} …", f"{n:,}") for text, n in d.openings], "tn")
    left = Markup("<div><h3>Diversity</h3>{}{}</div>").format(measures, openings if d.openings else _NOTHING)
    right = Markup("<div><h3>Lengths</h3>{}{}</div>").format(box(lengths_chart(d.lengths)), _gate(facts))
    return note + Markup('<div class="pair">{}{}</div>').format(left, right)


def _gate(facts: Facts) -> Markup:
    """What the stage rationales measured of the first answers and of the kept ones."""
    record = facts.records.get("rationales")
    figures = {} if record is None else record.figures
    names = [name.removesuffix(" before") for name in figures if name.endswith(" before")]
    rows = [(n, _number(figures[f"{n} before"]), _number(figures.get(f"{n} after", float("nan")))) for n in names]
    if not rows:
        return _NOTHING
    return Markup("<h3>The gate</h3>") + table(("measure", "first answers", "kept"), rows, "tnn")


def drops(facts: Facts) -> Markup:
    """What left which stage, by reason."""
    if not facts.drops:
        return Markup('<p class="note">Nothing: every item is in the set.</p>')
    most = max(d.count for d in facts.drops)
    bar = '<span class="track"><span class="bar" style="width: {:.1f}%"></span></span>'
    rows = [
        (d.stage, d.reason.replace("_", " "), Markup(bar).format(100 * d.count / most), f"{d.count:,}")
        for d in facts.drops
    ]
    note = Markup('<p class="note">In every stage, kept and left out add up to what came in.</p>')
    return note + table(("stage", "reason", "", "items"), rows, "kttn")


def costs(facts: Facts) -> Markup:
    """What each stage asked of models, and how long it took."""
    stages = [r for r in facts.records.values() if r.costs.asked or r.costs.reused]
    times = [(r.stage, f"{r.seconds:,.1f}") for r in facts.records.values()]
    seconds = table(
        ("stage", "seconds"), [*times, ("all", f"{sum(r.seconds for r in facts.records.values()):,.1f}")], "tn"
    )
    if not stages:
        return seconds
    names = list(dict.fromkeys(name for r in stages for name, _ in r.costs.rows()))
    found = [dict(r.costs.rows()) for r in stages]
    rows = [(name, *(_number(f[name]) if name in f else "–" for f in found)) for name in names]
    return table(("", *(r.stage for r in stages)), rows, "t" + "n" * len(stages)) + seconds


def models(facts: Facts) -> Markup:
    """Who was asked, in which role, by which stage."""
    rows = [(role, code(name), r.stage) for r in facts.records.values() for role, name in r.models.items()]
    return table(("role", "model (name and digest)", "stage"), rows, "ktk") if rows else _NOTHING


def recipe(facts: Facts) -> Markup:
    """What decides the outcome: recipes and inputs; each stage's own figures; the files."""
    rows = [
        (r.stage, time.strftime("%Y-%m-%d %H:%M", time.gmtime(r.finished_at)), code(r.recipe), code(r.code))
        for r in facts.records.values()
    ]
    inputs = [(r.stage, name, code(digest)) for r in facts.records.values() for name, digest in r.inputs.items()]
    figures = [(r.stage, name, _number(v)) for r in facts.records.values() for name, v in r.figures.items()]
    files = [(code(name), f"{n:,}", f"{size:,}") for name, n, size in facts.files]
    version = facts.version
    folded = Markup("<details><summary>{}</summary>{}</details>")
    return _NOTHING.join(
        [
            _NOTHING if version is None else _versions(version),
            table(("stage", "finished (UTC)", "recipe", "code"), rows, "kkkk"),
            folded.format("Inputs and their digests", table(("stage", "input", "digest"), inputs, "kkt")),
            folded.format("Figures of each stage", table(("stage", "figure", "value"), figures, "ktn")),
            Markup("<h3>Files of the set</h3>") + table(("under emit/", "files", "bytes"), files, "tnn"),
        ]
    )


def _versions(version: Version) -> Markup:
    parent = Markup(", after {}").format(code(version.parent[:12])) if version.parent else ", the first one"
    return Markup('<p title="{}">Version {}{}.</p>').format(version.version, code(version.short), parent)


def box(element: str) -> Markup:
    """A chart in its frame; wider than the window, it scrolls."""
    return Markup('<div class="chartbox">{}</div>').format(Markup(element))


def code(text: str) -> Markup:
    """A name that is no word."""
    return Markup("<code>{}</code>").format(text)


def _number(value: float) -> str:
    if value != value:  # a figure that one of two columns lacks
        return "–"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.4g}"
