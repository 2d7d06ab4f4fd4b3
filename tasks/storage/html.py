"""Render HTML pages from the Jinja templates beside the code; every value that is not markup is escaped."""

import math
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def html_environment(*folders: Path) -> Environment:
    """Return a Jinja environment that finds templates in `folders`, escapes every value and refuses unknown names.

    Its filters: `3|counted("item")`, `0.123|number(".1%")` (a Python format), `12345.6|figure` and `text|cut(80)`.
    """
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    filters: dict[str, Any] = {"counted": format_count, "number": format, "figure": format_figure, "cut": cut_text}
    environment.filters.update(filters)
    return environment


def format_count(number: int, noun: str) -> str:
    """Return the number followed by the noun, with an s unless the number is 1."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_figure(value: float) -> str:
    """Format a number: whole or from 1000 without decimals, others with four significant digits, NaN as a dash."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.4g}"


def cut_text(text: str, characters: int) -> str:
    """Return the text; of a text longer than `characters`, only its beginning and how many characters are missing."""
    return text if len(text) <= characters else f"{text[:characters]} … ({len(text) - characters:,} more characters)"
