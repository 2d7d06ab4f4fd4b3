"""Conversations of Qwen's own fine-tuning script.

Qwen's script (QwenLM/Qwen3-VL, qwen-vl-finetune/qwenvl/data) trains on the *next* row when it can't read one, and only
prints that; so what it can't read is refused here. It reads `image`, not `images`; its older reader breaks on an empty
list, so a row without images has no such key; both know no system turn: one drops it, the other takes it for an
answer. The newer reader trims the texts between images. A relative image is looked for under the `data_path` that the
set is registered with.
"""

from collections.abc import Sequence
from pathlib import Path

from tasks.dataset.export.conversation import Conversation, NotHeld, NotHeldReason, to_conversation
from tasks.dataset.export.files import ImageNames, JsonArray, SubsetWriter
from tasks.dataset.settings import ExportSpec
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer of `<name>.json`."""
    return SubsetWriter(folder, name, qwen_row, names, JsonArray)


def qwen_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """Return a row for Qwen's script, its images by the given names; raises NotHeld for what it can't read."""
    held = without_system(example)
    turns: list[dict[str, str]] = []
    for question, answer in held.turns:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    shown = {"image": images[0] if len(images) == 1 else list(images)} if images else {}
    return {**shown, "conversations": turns}


def without_system(example: Example) -> Conversation:
    """Return the example's conversation; raises NotHeld for one with a system turn."""
    held = to_conversation(example)
    if held.system is not None:
        raise NotHeld(example, NotHeldReason.SYSTEM_TURN, "a system turn, which this format's readers do not know")
    return held
