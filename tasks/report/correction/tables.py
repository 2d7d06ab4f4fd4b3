"""The tables of a correction's report. Cells are escaped unless they are Markup."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from tasks.report.correction.figures import Figures
from tasks.storage.html import format_count

_MOST_CLASSES = 30
"""Up to here, the confusion is drawn as a map."""
_PAIRS = 20
_IDS = 200
"""So many excluded ids of one reason are listed; report.json holds all."""
_NOTHING = Markup("")
_NO_LABEL = "none of the labels"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], kinds: str, shape: str = "") -> Markup:
    """A table; `kinds` says of each column whether it holds text (t) or numbers (n)."""
    top = _NOTHING.join(Markup('<th class="{}">{}</th>').format(k, h) for k, h in zip(kinds, heads, strict=True))
    body = _NOTHING.join(
        Markup("<tr>{}</tr>").format(
            _NOTHING.join(Markup('<td class="{}">{}</td>').format(k, cell) for k, cell in zip(kinds, row, strict=True))
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll"><table class="{}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(shape, top, body)


def pairs(figures: Figures) -> Markup:
    """Flagged items by given and proposed label: a map (of not too many classes), and the commonest pairs."""
    if not figures.pairs:
        return Markup('<p class="note">Nothing is flagged.</p>')
    return Markup(
        '<p class="note">Proposed is the final label where it changed, else the candidate. Numbers stand for labels, '
        'as under “Classes”.</p><div class="side">{}{}</div>'
    ).format(_map(figures) if len(figures.labels) <= _MOST_CLASSES else _NOTHING, _commonest(figures))


def _map(figures: Figures) -> Markup:
    """Given labels down, proposed ones across, by number: their names would not fit there."""
    counts = {(p.given, p.proposed): p.items for p in figures.pairs}
    most = max(counts.values())
    columns: list[str | None] = [*figures.labels, *([None] if any(p.proposed is None for p in figures.pairs) else [])]
    top = _NOTHING.join(
        Markup('<th title="{}">{}</th>').format(name or _NO_LABEL, number if name else "none")
        for number, name in enumerate(columns, 1)
    )
    body = _NOTHING.join(
        Markup('<tr><th title="{}"><span class="number">{}</span> {}</th>{}</tr>').format(
            given,
            number,
            given,
            _NOTHING.join(_cell(given, name, counts.get((given, name), 0), most) for name in columns),
        )
        for number, given in enumerate(figures.labels, 1)
    )
    return Markup(
        '<div class="map scroll"><table class="heat"><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(top, body)


def _cell(given: str, proposed: str | None, count: int, most: int) -> Markup:
    if given == proposed and not count:
        return Markup('<td class="same">·</td>')
    weight = 0.04 + 0.96 * count / most
    return Markup('<td class="{}" style="--w: {:.2f}" title="{} → {}: {}">{}</td>').format(
        "dark" if weight > 0.55 else "", weight, given, proposed or _NO_LABEL, count, count or ""
    )


def _commonest(figures: Figures) -> Markup:
    numbers = {label: number for number, label in enumerate(figures.labels, 1)}
    rows = [
        (_numbered(p.given, numbers), _numbered(p.proposed, numbers), f"{p.items:,}", f"{p.changed:,}")
        for p in figures.pairs[:_PAIRS]
    ]
    shown = f"The {len(rows)} commonest of {len(figures.pairs)} pairs" if len(figures.pairs) > _PAIRS else "All pairs"
    heads = ("given", "proposed", "flagged", "of these changed")
    return Markup("<div><h3>{}</h3>{}</div>").format(shown, table(heads, rows, "ttnn"))


def class_table(figures: Figures) -> Markup:
    """Each class: items, flagged share, wrong labels expected, labels changed."""
    rows: list[tuple[object, ...]] = []
    for number, found in enumerate(figures.classes, 1):
        part = found.flagged / found.items if found.items else 0.0
        bar = Markup(
            '<span class="track"><span class="bar" style="width: {:.1f}%"></span></span><span class="percent">{}</span>'
        ).format(100 * part, f"{part:.1%}" if found.items else "–")
        rows.append(
            (
                number,
                found.label,
                f"{found.items:,}",
                f"{found.flagged:,}",
                bar,
                f"{found.expected_wrong:.1f}",
                found.changed,
            )
        )
    heads = ("no.", "given label", "items", "flagged", "share flagged", "wrong, expected", "changed")
    return table(heads, rows, "ntnnnnn")


def suspect_table(figures: Figures) -> Markup:
    """The items whose given label is least likely right."""
    rows = [
        (
            s.id, s.given, "–" if s.candidate is None else s.candidate,
            f"{s.p_given:.3f}", f"{s.p_candidate:.3f}", f"{s.p_neither:.3f}",
            Markup('<span class="tag {}">{}</span>').format(s.action.value, s.action.value),
            "–" if s.verdict is None else s.verdict,
        )
        for s in figures.suspects
    ]  # fmt: skip
    heads = ("item", "given", "candidate", "P(given)", "P(candidate)", "P(neither)", "action", "verdict")
    return table(heads, rows, "tttnnntt")


def excluded_list(figures: Figures) -> Markup:
    """What no decision was made about: ids by reason."""
    if not figures.excluded:
        return Markup('<p class="note">Nothing: every item was judged.</p>')
    by_reason: dict[str, list[str]] = defaultdict(list)
    for identity, reason in figures.excluded.items():
        by_reason[reason].append(identity)
    lines = [
        Markup("<p>Not judged, so that the given labels stay: {}.</p>").format(
            format_count(len(figures.excluded), "item")
        )
    ]
    for reason, ids in sorted(by_reason.items(), key=lambda pair: -len(pair[1])):
        rest = f" … and {len(ids) - _IDS:,} more, in report.json" if len(ids) > _IDS else ""
        lines.append(
            Markup("<details><summary>{} <strong>({:,})</strong></summary><p>{}{}</p></details>").format(
                reason, len(ids), ", ".join(ids[:_IDS]), rest
            )
        )
    return _NOTHING.join(lines)


def _numbered(label: str | None, numbers: dict[str, int]) -> Markup:
    if label is None:
        return Markup("{}").format(_NO_LABEL)
    return Markup('<span class="number">{}</span> {}').format(numbers[label], label)
