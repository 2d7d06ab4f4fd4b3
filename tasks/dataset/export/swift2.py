"""The format of ms-swift 2: conversations with `<img>` tags. ms-swift 4 also reads it, by the rules in swift.py.

It has no form for the frames of a recording, so they are images.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample, make_conversation
from tasks.dataset.export.files import ImageNames, JsonLines, SubsetWriter
from tasks.dataset.settings import ExportSpec
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.jsonl`."""
    return SubsetWriter(folder, name, partial(make_swift2_row, spec=spec), names, JsonLines, frames_as_images=True)


def make_swift2_row(example: Example, images: Sequence[str], *, spec: ExportSpec) -> dict[str, object]:
    """Return a row for ms-swift 2, in which each `<image>` is replaced by `<img>name</img>`.

    Relative paths are relative to the folder in which the trainer is started. Raises UnsupportedExample if the reader
    would misread the row, or if an image name contains `<` or a line break.
    """
    conversation = make_conversation(example, spec)
    if unfit := [name for name in images if "<" in name or "\n" in name]:
        raise UnsupportedExample(
            example, LeftOutReason.PATH_UNFIT, f"{unfit[0]!r} can't be written in an <img> tag; rename the file"
        )
    left = iter(images)
    turns: list[dict[str, str]] = []
    for question, answer in conversation.turns:
        first, *rest = question.split(IMAGE_TOKEN)
        value = first + "".join(f"<img>{next(left)}</img>{text}" for text in rest)
        turns += [{"from": "user", "value": value}, {"from": "assistant", "value": answer}]
    system = {} if conversation.system is None else {"system": conversation.system}
    return {**system, "conversations": turns}
