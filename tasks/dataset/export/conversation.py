"""Convert an example to the alternating conversation that every trainer expects; check it and escape its text."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.dataset.decisions import LeftOutReason
from tasks.prompts.turns import IMAGE_TOKEN, escape_placeholder
from tasks.records import Example, Message


class UnsupportedExample(ValueError):
    """The example can't be written in this format, because its reader would skip, misread or reject it."""

    def __init__(self, example: Example, reason: LeftOutReason, detail: str) -> None:
        super().__init__(f"item {example.sample_id}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system text and (question, answer) pairs. The questions contain one `<image>` per image."""

    system: str | None
    turns: tuple[tuple[str, str], ...]

    def messages(self) -> list[dict[str, str]]:
        """Return the turns as objects with `role` and `content`. The system turn, if any, comes first."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        pairs = [(("user", question), ("assistant", answer)) for question, answer in self.turns]
        return first + [{"role": role, "content": content} for pair in pairs for role, content in pair]


def make_conversation(example: Example) -> Conversation:
    """Return the example's conversation. Text that a reader would take for a special token is escaped.

    Raises UnsupportedExample unless user and assistant alternate after an optional system turn, and the turns contain
    exactly one `<image>` per image of the example.
    """
    first = example.messages[:1]
    system = first[0] if first and first[0].role == "system" else None
    turns = example.messages[1:] if system else example.messages
    roles = [m.role for m in turns]
    if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        detail = f"turns must alternate user, assistant; they are {roles}"
        raise UnsupportedExample(example, LeftOutReason.TURNS_DO_NOT_ALTERNATE, detail)
    contents = [escape_content(m) for m in turns]
    tokens = sum(content.count(IMAGE_TOKEN) for content in contents)
    if tokens != len(example.images):
        detail = f"{tokens} `<image>` for {len(example.images)} images"
        raise UnsupportedExample(example, LeftOutReason.IMAGES_DO_NOT_MATCH, detail)
    return Conversation(
        escape_content(system) if system else None, tuple(zip(contents[::2], contents[1::2], strict=True))
    )


def make_messages_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """Return a row in the format of LLaMA-Factory and ms-swift 4; `images` are the names of the image files.

    Raises UnsupportedExample for an example that their readers would skip, change or misread.
    """
    return {"messages": make_conversation(example).messages(), "images": list(images)}


def escape_content(message: Message) -> str:
    """Escape everything in the message's text that a reader would take for a special token, and return the text.

    In a user turn, `<image>` stands for an image and is kept. In other turns it is literal text, for example from OCR,
    and is escaped, because a reader would count it as an image.
    """
    if message.role != "user":
        return escape_placeholder(message.content)
    return IMAGE_TOKEN.join(escape_placeholder(text) for text in message.content.split(IMAGE_TOKEN))
