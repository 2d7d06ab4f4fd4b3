"""Small examples for the exports' tests."""

from functools import partial
from typing import Any

from tasks.dataset.export import conversation, qwen, swift, swift2, vision_start
from tasks.dataset.settings import ExportSpec
from tasks.media import ImageRef
from tasks.records import Example, Origin
from tests.tasks.making import image

SPEC = ExportSpec()
make_conversation = partial(conversation.make_conversation, spec=SPEC)
make_messages_row = partial(conversation.make_messages_row, spec=SPEC)
make_swift_row = partial(swift.make_swift_row, spec=SPEC, thinks=False)
make_swift2_row = partial(swift2.make_swift2_row, spec=SPEC)
make_qwen_row = partial(qwen.make_qwen_row, spec=SPEC)
make_vision_start_row = partial(vision_start.make_vision_start_row, spec=SPEC)


def make_example(*turns: tuple[str, str], images: int | tuple[ImageRef, ...] = 0, **fields: Any) -> Example:
    shown = tuple(image(str(i)) for i in range(images)) if isinstance(images, int) else images
    values: dict[str, Any] = {
        "sample_id": "item-7",
        "messages": [{"role": role, "content": content} for role, content in turns],
        "images": shown,
        "label": "x",
        "origin": Origin.GIVEN,
        "why": "w",
        "source": "f",
    }
    return Example.model_validate(values | fields)


def ask(question: str = "问", answer: str = "答", **fields: Any) -> Example:
    return make_example(("user", question), ("assistant", answer), **fields)
