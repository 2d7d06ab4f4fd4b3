"""Conversations of Qwen's own fine-tuning script, and of the `<|vision_start|>` tutorials.

Qwen's script (QwenLM/Qwen3-VL, qwen-vl-finetune/qwenvl/data) trains on the *next* row when it can't read one, and only
prints that; so what it can't read is refused here. It reads `image`, not `images`; its older reader breaks on an empty
list, so a row without images has no such key; both know no system turn: one drops it, the other takes it for an
answer. The newer reader trims the texts between images. A relative image is looked for under the `data_path` that the
set is registered with. The tutorials' readers take the first image and the first exchange of a row, nothing else.
"""

from collections.abc import Sequence

from tasks.dataset.export.conversation import Conversation, conversation
from tasks.dataset.export.exports import NotHeld, Reason
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example


def qwen_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """A row for Qwen's script, its images by the given names; raises NotHeld for what it would skip or misread."""
    held = _without_system(example)
    turns: list[dict[str, str]] = []
    for question, answer in held.turns:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    shown = {"image": images[0] if len(images) == 1 else list(images)} if images else {}
    return {**shown, "conversations": turns}


def vision_start_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """A row with its one image as `<|vision_start|>name<|vision_end|>`; raises NotHeld for any other example."""
    if len(images) != 1:
        raise NotHeld(example, Reason.NOT_ONE_IMAGE, f"{len(images)} images; this format's readers take exactly one")
    held = _without_system(example)
    if len(held.turns) != 1:
        raise NotHeld(example, Reason.NOT_ONE_TURN, f"{len(held.turns)} exchanges; readers take the first alone")
    question, answer = held.turns[0]
    value = question.replace(IMAGE_TOKEN, f"<|vision_start|>{images[0]}<|vision_end|>")
    turns = [{"from": "user", "value": value}, {"from": "assistant", "value": answer}]
    return {"id": example.sample_id, "conversations": turns}


def _without_system(example: Example) -> Conversation:
    held = conversation(example)
    if held.system is not None:
        raise NotHeld(example, Reason.SYSTEM_TURN, "a system turn, which this format's readers do not know")
    return held
