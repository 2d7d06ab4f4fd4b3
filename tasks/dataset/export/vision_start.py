"""The format of the `<|vision_start|>` tutorials, whose readers use only a row's first image and first exchange."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample
from tasks.dataset.export.files import ImageNames, JsonArray, SubsetWriter
from tasks.dataset.export.qwen import make_conversation_without_system
from tasks.dataset.settings import ExportSpec
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.json`."""
    return SubsetWriter(
        folder, name, partial(make_vision_start_row, spec=spec), names, JsonArray, frames_as_images=True
    )


def make_vision_start_row(example: Example, images: Sequence[str], *, spec: ExportSpec) -> dict[str, object]:
    """Return a row in which `<image>` is replaced by `<|vision_start|>name<|vision_end|>`.

    Raises UnsupportedExample unless the example has exactly one image, one exchange and no system turn.
    """
    if len(images) != 1:
        raise UnsupportedExample(
            example, LeftOutReason.NOT_ONE_IMAGE, f"{len(images)} images; this format's readers take exactly one"
        )
    conversation = make_conversation_without_system(example, spec)
    if len(conversation.turns) != 1:
        raise UnsupportedExample(
            example,
            LeftOutReason.NOT_ONE_TURN,
            f"{len(conversation.turns)} exchanges; programs that read this format use only the first",
        )
    question, answer = conversation.turns[0]
    value = question.replace(IMAGE_TOKEN, f"<|vision_start|>{images[0]}<|vision_end|>")
    turns = [{"from": "user", "value": value}, {"from": "assistant", "value": answer}]
    return {"id": example.sample_id, "conversations": turns}
