"""Convert an example to the alternating conversation that every trainer expects; check it and escape its text."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.settings import ExportSpec
from tasks.media import ImageRef
from tasks.models.qwen_vl import read_qwen_vl
from tasks.prompts.box_forms import BoxForm, fill_in_boxes, find_box_form
from tasks.prompts.turns import BOX_TOKEN, IMAGE_TOKEN, VIDEO_TOKEN, escape_placeholder
from tasks.records import Example, Message

_MEDIA = re.compile(f"({IMAGE_TOKEN}|{VIDEO_TOKEN})")


class UnsupportedExample(ValueError):
    """The example can't be written in this format, because its reader would skip, misread or reject it."""

    def __init__(self, example: Example, reason: LeftOutReason, detail: str) -> None:
        super().__init__(f"item {example.sample_id}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system text and (question, answer) pairs.

    The questions contain one `<image>` per image and one `<video>` per recording.
    """

    system: str | None
    turns: tuple[tuple[str, str], ...]

    def messages(self) -> list[dict[str, str]]:
        """Return the turns as objects with `role` and `content`. The system turn, if any, comes first."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        pairs = [(("user", question), ("assistant", answer)) for question, answer in self.turns]
        return first + [{"role": role, "content": content} for pair in pairs for role, content in pair]


def make_conversation(example: Example, spec: ExportSpec) -> Conversation:
    """Return the example's conversation. Text that a reader would take for a special token is escaped.

    Boxes are written in the form of the base's generation, but always in thousandths: the readers resize images by
    bounds of their own, so that pixels would be silently off. Raises UnsupportedExample unless user and assistant
    alternate after an optional system turn, and the turns contain exactly one `<image>` per image of the example, one
    `<video>` per recording and one `<bbox>` per box.
    """
    conversation = mark_boxes(example)
    if not example.boxes:
        return conversation
    *before, (question, answer) = conversation.turns
    filled = fill_in_boxes(answer, example.boxes, example.images, find_form(spec))
    return replace(conversation, turns=(*before, (question, filled)))


def find_form(spec: ExportSpec) -> BoxForm:
    """Return the form of boxes that the base of the exports knows; raises what `read_qwen_vl` raises."""
    return _find_form(spec.base, spec.revision)


@cache  # it reads files, and is asked for each example
def _find_form(base: str, revision: str | None) -> BoxForm:
    return find_box_form(read_qwen_vl(base, revision).model_type)


def mark_boxes(example: Example) -> Conversation:
    """Return the example's conversation with one `<bbox>` for each box; raises what `make_conversation` raises."""
    first = example.messages[:1]
    system = first[0] if first and first[0].role == "system" else None
    turns = example.messages[1:] if system else example.messages
    roles = [m.role for m in turns]
    if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        detail = f"turns must alternate user, assistant; they are {roles}"
        raise UnsupportedExample(example, LeftOutReason.TURNS_DO_NOT_ALTERNATE, detail)
    contents = [escape_content(m) for m in turns]
    if example.boxes:
        contents[-1] = BOX_TOKEN.join(escape_placeholder(text) for text in turns[-1].content.split(BOX_TOKEN))
        if (marks := contents[-1].count(BOX_TOKEN)) != len(example.boxes):
            detail = f"{marks} `<bbox>` in the answer for {len(example.boxes)} boxes"
            raise UnsupportedExample(example, LeftOutReason.BOXES_DO_NOT_MATCH, detail)
    for token, media, reason in (
        (IMAGE_TOKEN, example.images, LeftOutReason.IMAGES_DO_NOT_MATCH),
        (VIDEO_TOKEN, example.videos, LeftOutReason.VIDEOS_DO_NOT_MATCH),
    ):
        tokens = sum(content.count(token) for content in contents)
        if tokens != len(media):
            raise UnsupportedExample(example, reason, f"{tokens} `{token}` for {len(media)} {token[1:-1]}s")
    return Conversation(
        escape_content(system) if system else None, tuple(zip(contents[::2], contents[1::2], strict=True))
    )


def make_messages_row(
    example: Example, images: Sequence[str], spec: ExportSpec, videos: Sequence[Sequence[str]] = ()
) -> dict[str, object]:
    """Return a row in the format of LLaMA-Factory; `images` are the names of the image files.

    `videos` are the names of each recording's frames. Raises UnsupportedExample for an example that its reader would
    skip, change or misread.
    """
    row: dict[str, object] = {"messages": make_conversation(example, spec).messages(), "images": list(images)}
    return row | ({"videos": [list(frames) for frames in videos]} if videos else {})


def split_pairs(example: Example) -> Iterator[Example]:
    """Yield an example for each pair: its conversation ends with the answer to prefer, and it has only this pair."""
    for pair in example.pairs:
        yield example.model_copy(update={"messages": pair.messages, "boxes": (), "pairs": (pair,)})


def get_rejected(example: Example) -> str:
    """Return the answer to reject of an example with one pair, escaped like the answers of `make_conversation`."""
    (pair,) = example.pairs
    return escape_placeholder(pair.rejected)


def show_frames_as_images(example: Example) -> Example:
    """Return the example with the frames of each recording as images in its place, for readers that know no frames.

    Boxes follow their images. Raises UnsupportedExample unless there are as many placeholders as media.
    """
    if not example.videos:
        return example
    mark_boxes(example)
    images, videos = iter(example.images), iter(example.videos)
    shown: list[ImageRef] = []
    places: list[int] = []

    def place(found: re.Match[str]) -> str:
        if found[0] == IMAGE_TOKEN:
            places.append(len(shown))
            shown.append(next(images))
            return IMAGE_TOKEN
        frames = next(videos).frames
        shown.extend(frames)
        return IMAGE_TOKEN * len(frames)

    messages = tuple(
        m.model_copy(update={"content": _MEDIA.sub(place, m.content)}) if m.role == "user" else m
        for m in example.messages
    )
    boxes = tuple(box.model_copy(update={"image": places[box.image]}) for box in example.boxes)
    return example.model_copy(update={"messages": messages, "images": tuple(shown), "videos": (), "boxes": boxes})


def escape_content(message: Message) -> str:
    """Escape everything in the message's text that a reader would take for a special token, and return the text.

    In a user turn, `<image>` stands for an image and `<video>` for a recording, and they are kept. In other turns they
    are literal text, for example from OCR, and are escaped, because a reader would count them.
    """
    if message.role != "user":
        return escape_placeholder(message.content)
    pieces = _MEDIA.split(message.content)
    return "".join(text if _MEDIA.fullmatch(text) else escape_placeholder(text) for text in pieces)
