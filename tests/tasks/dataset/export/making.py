"""Small examples for the exports' tests."""

from typing import Any

from tasks.records import Example, ImageRef, Origin
from tests.tasks.making import image


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
