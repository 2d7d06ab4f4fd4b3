"""The report of a correction: one self-contained page, and every figure of it as JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from tasks.correction.decide import Decisions
from tasks.report.correction.cleanlab_compare import Comparison, compare
from tasks.report.correction.figures import Figures
from tasks.report.correction.measures import figures_of, held_out
from tasks.report.correction.page import gate_sentence, page_of
from tasks.storage.files import write_bytes

PAGE, FIGURES = "report.html", "report.json"
"""The files of a report's folder."""
_NO_COSTS: Mapping[str, float] = MappingProxyType({})
_NONE_EXCLUDED: Mapping[str, str] = MappingProxyType({})


def write_report(
    decisions: Decisions,
    folder: Path,
    *,
    title: str,
    costs: Mapping[str, float] = _NO_COSTS,
    excluded: Mapping[str, str] = _NONE_EXCLUDED,
    repeats: int = 1,
) -> dict[str, float]:
    """Write `folder`/report.html and report.json (atomically), and return the main figures by name.

    `costs` are shown as they are named; `excluded` is item id → why no decision was made about it; `repeats` is how
    many predictions an item the students' probabilities are the mean of. Estimates are left out of what is returned
    while there are too few verdicts for them.
    """
    unheard = held_out(decisions)
    figures = figures_of(decisions, unheard, title=title, costs=costs, excluded=excluded, repeats=repeats)
    comparison = compare(decisions, unheard)
    page = page_of(figures, comparison).encode()
    plain = orjson.dumps(_plain(figures, comparison), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    write_bytes(folder / PAGE, page)
    write_bytes(folder / FIGURES, plain)
    return _main(figures)


def _plain(figures: Figures, comparison: Comparison | None) -> dict[str, Any]:
    beside = None if comparison is None else asdict(comparison)
    return asdict(figures) | {"gate_why": gate_sentence(figures), "cleanlab": beside}


def _main(figures: Figures) -> dict[str, float]:
    changes = figures.changes
    main: dict[str, float] = {
        "items": figures.items,
        "flagged": figures.flagged,
        "verdicts": figures.verdicts,
        "reviews": figures.reviews,
        "teacher calls": figures.teacher_calls,
        "excluded": len(figures.excluded),
        "changed by verdict": changes.by_verdict,
        "dropped by verdict": changes.dropped,
        "changed unreviewed": changes.unreviewed,
        "waiting for review": figures.actions["review"],
        "expected right to wrong": changes.right_to_wrong,
        "expected wrong to right": changes.wrong_to_right,
        "expected wrong, given labels": figures.expected_wrong_given,
        "expected wrong, final labels": figures.expected_wrong_left,
        "gate open": float(figures.gate_open),
        "gate lower bound": float(figures.gate.lower),
    }
    for name, found in figures.estimates.items():
        main |= {f"estimated {name}": found.value, f"{name}, low": found.low, f"{name}, high": found.high}
    return main
