"""A table as markup, for the card until its own template lays it out."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

_NOTHING = Markup("")


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
