"""Write the card as README.md: metadata for the Hugging Face Hub, then the facts of the card as tables."""

import re
from collections.abc import Iterable, Iterator, Sequence

from huggingface_hub import DatasetCardData

from tasks.evaluation.table import TRANSDUCTIVE
from tasks.report.card.page import Card
from tasks.report.card.warnings import is_transductive, list_warnings
from tasks.storage.html import format_count

_SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST_CATEGORY = "1M<n<10M"
_MARKDOWN_CHARACTERS = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
_LICENCE_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LISTED_LABELS = 100


def render_readme(card: Card) -> str:
    """Return the content of README.md. Text from data is escaped, so that it is not read as Markdown or HTML."""
    return f"---\n{_make_metadata(card).to_yaml()}\n---\n\n" + "\n".join(_write_lines(card)) + "\n"


def _make_metadata(card: Card) -> DatasetCardData:
    count = card.facts.emitted.count
    licence, name = _name_licence(card.licence)
    return DatasetCardData(
        pretty_name=card.title,
        license=licence,
        license_name=name,
        language=card.language,
        task_categories=["image-text-to-text"],
        size_categories=next((size for most, size in _SIZE_CATEGORIES if count < most), _LARGEST_CATEGORY),
        annotations_creators=_list_creators(card),
        tags=["labelstill", *(["transductive"] if is_transductive(card.facts) else [])],
    )


def _name_licence(licence: str | None) -> tuple[str, str | None]:
    """Return the licence's identifier on the Hub and None. If it has no identifier, return `other` and its name."""
    if licence is None:
        return "unknown", None
    if _LICENCE_IDENTIFIER.fullmatch(licence.lower()):
        return licence.lower(), None
    return "other", re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-") or "unnamed"


def _list_creators(card: Card) -> list[str]:
    """Return who made the labels, in the Hub's words. Nobody knows who made the given labels: they were found."""
    origins = card.facts.emitted.origins
    by_models = origins["correction"] + origins["pseudo"]
    counts = {"expert-generated": origins["review"], "found": origins["given"], "machine-generated": by_models}
    return [word for word, count in counts.items() if count]


def _write_lines(card: Card) -> Iterator[str]:
    facts = card.facts
    if is_transductive(facts):
        yield f"**{TRANSDUCTIVE}**\n"
    yield f"# {escape_markdown(card.title)}\n"
    labels = "free text" if facts.emitted.labels is None else format_count(len(facts.emitted.labels), "label")
    yield f"{format_count(facts.emitted.count, 'training example')}, {labels}. Made by labelstill."
    yield "The whole card, with charts and examples, is the page `index.html` beside this file.\n"
    if warnings := list_warnings(facts, card.licence):
        yield "## Read this first\n"
        yield from (f"- {escape_markdown(warning)}" for warning in warnings)
        yield ""
    yield "## Flow\n"
    rows = [(r.stage, r.read, r.kept, r.dropped, f"{r.seconds:.0f}") for r in facts.records.values()]
    yield from _write_table(("stage", "in", "kept", "left out", "seconds"), rows)
    yield "## Where labels come from\n"
    parts = sorted(facts.emitted.parts.items())
    yield from _write_table(("origin", "subset", "examples"), [(o, s, n) for (o, s), n in parts])
    if facts.emitted.labels:
        yield "## Labels\n"
        after = {label: found.total() for label, found in facts.emitted.labels.items()}
        ranked = sorted({*after, *facts.before}, key=lambda x: (-after.get(x, 0), x))
        yield from _write_table(
            ("label", "before", "after"), [(x, facts.before[x], after.get(x, 0)) for x in ranked[:_LISTED_LABELS]]
        )
    if facts.drops:
        yield "## Left out\n"
        yield from _write_table(("stage", "reason", "items"), [(d.stage, d.reason, d.count) for d in facts.drops])
    yield "## Models and recipe\n"
    rows = [
        (r.stage, ", ".join(f"{role}: {name}" for role, name in r.models.items()) or "–", r.recipe, r.code)
        for r in facts.records.values()
    ]
    yield from _write_table(("stage", "models", "recipe", "code"), rows)
    yield f"## Licence\n\n{escape_markdown(card.licence or 'Not named.')}"


def escape_markdown(text: str) -> str:
    """Escape `text` so that Markdown shows it as it is, on one line."""
    return _MARKDOWN_CHARACTERS.sub(r"\\\1", " ".join(text.split()))


def _write_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + " --- |" * len(heads)
    for row in rows:
        yield f"| {' | '.join(escape_markdown(f'{c:,}' if isinstance(c, int) else str(c)) for c in row)} |"
    yield ""
