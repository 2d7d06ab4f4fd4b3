"""ms-swift's format, version 2: conversations with `<img>` tags, which version 4 reads too (its rules: swift.py)."""

from collections.abc import Sequence
from pathlib import Path

from tasks.dataset.export.conversation import NotHeld, NotHeldReason, to_conversation
from tasks.dataset.export.files import ImageNames, JsonLines, SubsetWriter
from tasks.dataset.settings import ExportSpec
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer of `<name>.jsonl`."""
    return SubsetWriter(folder, name, swift2_row, names, JsonLines)


def swift2_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """Return a line for ms-swift 2, each `<image>` as `<img>name</img>`; raises NotHeld for what it can't hold.

    Relative images are looked for from the folder in which the trainer is started.
    """
    held = to_conversation(example)
    if unfit := [name for name in images if "<" in name or "\n" in name]:
        raise NotHeld(example, NotHeldReason.PATH_UNFIT, f"{unfit[0]!r} can't stand between <img> tags")
    left = iter(images)
    turns: list[dict[str, str]] = []
    for question, answer in held.turns:
        first, *rest = question.split(IMAGE_TOKEN)
        value = first + "".join(f"<img>{next(left)}</img>{text}" for text in rest)
        turns += [{"from": "user", "value": value}, {"from": "assistant", "value": answer}]
    system = {} if held.system is None else {"system": held.system}
    return {**system, "conversations": turns}
