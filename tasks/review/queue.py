"""The review queue: its order, its file, and the page that is written with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import orjson
from pydantic import ValidationError

from tasks.errors import ConfigError, ManifestError
from tasks.records import ReviewCase
from tasks.review.page import write_review_page
from tasks.storage.files import write_bytes

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
    write_bytes(folder / CASES, b"".join(orjson.dumps(c.model_dump(mode="json")) + b"\n" for c in cases))
    write_review_page(cases, folder / PAGE, title=title, verdicts=verdicts, inline=inline)


def read_queue(folder: Path) -> list[ReviewCase]:
    """The cases that `write_queue` wrote, in order.

    Raises ConfigError when there is no queue, ManifestError naming the line that is no case.
    """
    file = folder / CASES
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(
            f"{file}: there is no review queue: {error.strerror}; a run with corrections leaves one"
        ) from error
    cases: list[ReviewCase] = []
    for number, line in enumerate(lines, 1):
        try:
            cases.append(ReviewCase.model_validate_json(line))
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise ManifestError(
                f"{file}, line {number}: is no review case ({why}); run again to write it anew"
            ) from error
    return cases
