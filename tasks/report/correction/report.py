"""Write the report of a correction: one self-contained page (page.html), and its figures as JSON."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from tasks.correction.decide import Decisions
from tasks.media import TextPart
from tasks.records import Sample
from tasks.report.charts import draw_confusion
from tasks.report.correction.charts import draw_budget, draw_reliability, draw_suspicion
from tasks.report.correction.figures import measure
from tasks.report.pictures import Picture, make_strip, shrink_image
from tasks.storage.files import write_bytes
from tasks.storage.fonts import LATIN, embed_fonts
from tasks.storage.html import html_environment
from tasks.storage.json_lines import write_json

PAGE, FIGURES = "report.html", "report.json"
"""The names of the report's files."""
_NAMED = 3
_TEMPLATES = Path(__file__).parent


def write_report(
    decisions: Decisions,
    folder: Path,
    *,
    title: str,
    costs: Mapping[str, float],
    excluded: Mapping[str, str],
    repeats: int,
    samples: Iterable[Sample] = (),
    note: str = "",
) -> None:
    """Write `folder`/report.html and report.json (atomically).

    `costs` maps name to cost. `excluded` maps the id of each item without a decision to the reason. `repeats` says how
    many predictions per item were averaged to get the students' probabilities. The page shows what `samples` contains
    of the most suspicious items and of typical items of overlapping labels. `note` is a sentence for its top.
    """
    figures: dict[str, Any] = {"title": title, "costs": costs, "excluded": excluded, "repeats": repeats} | measure(
        decisions
    )
    if note:
        figures["note"] = note
    wanted = {suspect["id"] for suspect in figures["suspects"]}
    for pair in figures["overlaps"]:
        wanted.update(pair["examples_of_first"], pair["examples_of_second"])
    shown = {sample.id: sample for sample in samples if sample.id in wanted}
    write_bytes(folder / PAGE, render_page(figures, shown).encode())
    write_json(folder / FIGURES, figures)


def describe_overlaps(folder: Path) -> str:
    """Return a sentence about the labels whose definitions overlap by `folder`/report.json; empty if none do."""
    try:
        figures = orjson.loads((folder / FIGURES).read_bytes())
    except FileNotFoundError:
        return ""
    named = [f"{pair['first']} / {pair['second']}" for pair in figures.get("overlaps", ()) if pair["named"]]
    more = f" and {len(named) - _NAMED} more pairs" if len(named) > _NAMED else ""
    if not named:
        return ""
    return (
        "These labels are taken for each other so often that their definitions may overlap: "
        f"{', '.join(named[:_NAMED])}{more}; sharpen the definitions in the pack "
        f"({PAGE} of the stage correction shows examples)."
    )


def render_page(figures: Mapping[str, Any], shown: Mapping[str, Sample] = {}) -> str:
    """Return the HTML page for the figures of report.json, with embedded fonts. `shown` maps id to an item on it."""
    excluded: dict[str, list[str]] = defaultdict(list)
    for identity, reason in figures["excluded"].items():
        excluded[reason].append(identity)
    page = html_environment(_TEMPLATES, _TEMPLATES.parent).get_template("page.html")
    contents = {identity: (_show_first(sample), _join_texts(sample)) for identity, sample in shown.items()}
    values: dict[str, Any] = dict(
        figures,
        contents=contents,
        confusion={(pair["given"], pair["proposed"]): pair["items"] for pair in figures["pairs"]},
        draw_confusion=draw_confusion,
        excluded_by_reason=sorted(excluded.items(), key=lambda pair: -len(pair[1])),
        draw_suspicion=draw_suspicion,
        draw_reliability=draw_reliability,
        draw_budget=draw_budget,
    )
    text = page.render(values, fonts=())
    foreign = "".join(sorted(c for c in set(text) if ord(c) > LATIN))
    return page.render(values, fonts=embed_fonts(foreign)) if foreign else text


def _show_first(sample: Sample) -> tuple[Picture, ...]:
    """Return the item's first image with its boxes, or frames of its first recording if it has no image."""
    if sample.images:
        return (shrink_image(sample.images[0], boxes=[box for box in sample.boxes if box.image == 0]),)
    return make_strip(sample.videos[0]) if sample.videos else ()


def _join_texts(sample: Sample) -> str:
    return " ".join("".join(part.text for part in sample.parts if isinstance(part, TextPart)).split())
