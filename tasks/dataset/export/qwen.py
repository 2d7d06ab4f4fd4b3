"""The format of Qwen's own fine-tuning script (QwenLM/Qwen3-VL, qwen-vl-finetune/qwenvl/data).

If the script can't read a row, it prints a message and trains on the next row instead. Such rows are rejected here. The
script has an older and a newer reader, with these rules:

- They read `image`, not `images`. The older one fails on an empty list, so a row without images has no such key.
- Neither supports system turns: one drops them, the other takes them for an answer.
- The newer one trims the texts between images.
- It decodes recordings itself and takes frames of its own choice, so rows contain our frames as images.
- A relative image path is looked up in the `data_path` that the data set is registered with.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import Conversation, UnsupportedExample, make_conversation
from tasks.dataset.export.files import ImageNames, JsonArray, SubsetWriter
from tasks.dataset.settings import ExportSpec
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.json`."""
    return SubsetWriter(folder, name, partial(make_qwen_row, spec=spec), names, JsonArray, frames_as_images=True)


def make_qwen_row(example: Example, images: Sequence[str], *, spec: ExportSpec) -> dict[str, object]:
    """Return a row for Qwen's script. `images` are the names of the image files.

    Raises UnsupportedExample if the script can't read the row.
    """
    conversation = make_conversation_without_system(example, spec)
    turns: list[dict[str, str]] = []
    for question, answer in conversation.turns:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    shown = {"image": images[0] if len(images) == 1 else list(images)} if images else {}
    return {**shown, "conversations": turns}


def make_conversation_without_system(example: Example, spec: ExportSpec) -> Conversation:
    """Return the example's conversation; raises UnsupportedExample if it is invalid or has a system turn."""
    conversation = make_conversation(example, spec)
    if conversation.system is not None:
        raise UnsupportedExample(
            example, LeftOutReason.SYSTEM_TURN, "a system turn, which this format's readers do not know"
        )
    return conversation
