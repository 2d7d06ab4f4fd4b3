"""The review queue: its order, its file, and the page that is written with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tasks.errors import ConfigError, ManifestError
from tasks.records import ReviewCase
from tasks.review.page import write_review_page
from tasks.storage.json_lines import read_models, write_json_lines

CASES, PAGE, STORE = "cases.jsonl", "review.html", "verdicts.jsonl"
"""The files of a review folder: the questions, the page that asks them, what people said (`tasks.review.verdicts`)."""
_NO_VERDICTS: Mapping[str, str] = MappingProxyType({})


def write_queue(
    cases: Sequence[ReviewCase],
    folder: Path,
    verdicts: Mapping[str, str] = _NO_VERDICTS,
    *,
    title: str = "Review",
    inline: bool = True,
) -> None:
    """Write the queue's file and its page to `folder`, with the `verdicts` there are (id → label or `neither`)."""
    write_json_lines(folder / CASES, cases)
    write_review_page(cases, folder / PAGE, title=title, verdicts=verdicts, inline=inline)


def read_queue(folder: Path) -> list[ReviewCase]:
    """The cases that `write_queue` wrote, in order.

    Raises ConfigError when there is no queue, ManifestError naming the line that is no case.
    """
    file = folder / CASES
    if not file.exists():
        raise ConfigError(f"{file}: there is no review queue; a run with corrections leaves one")
    return list(read_models(file, ReviewCase, "review case", ManifestError, "run again to write it anew"))
