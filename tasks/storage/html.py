"""Render HTML pages from the Jinja templates beside the code; every value that is not markup is escaped."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def html_environment(*folders: Path) -> Environment:
    """Return an environment that finds templates in `folders`, escapes every value and refuses unknown names."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
