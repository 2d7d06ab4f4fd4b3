"""What of an item a prompt shows beyond what it holds, and what of it is never shortened."""

from collections.abc import Mapping

from tasks.packs.pack import TaskPack
from tasks.packs.pack_file import OcrOption
from tasks.records import ImagePart, Part, Sample, TextPart


def with_texts(parts: tuple[Part, ...], texts: Mapping[str, str], option: OcrOption | None) -> tuple[Part, ...]:
    """The parts with the text on each image behind it (`texts` by image digest), delimited as the pack says."""
    if option is None:
        return parts
    shown: list[Part] = []
    for part in parts:
        shown.append(part)
        if isinstance(part, ImagePart) and (text := texts.get(part.image.sha256, "").strip()):
            # what stands on an image must not end its own brackets
            text = text.replace(option.before, " ").replace(option.after, " ")[: option.max_chars]
            shown.append(TextPart(text=option.before + text + option.after, turn=part.turn))
    return tuple(shown)


def latest_user_turn(sample: Sample, task: TaskPack) -> int:
    """The number of the user's latest turn, 0 where the item has no turns."""
    turns = {part.turn for part in sample.parts}
    if task.user_turn is None:
        return max(turns, default=0)
    spoken = [p.turn for p in sample.parts if isinstance(p, TextPart) and task.user_turn.search(p.text)]
    return max(spoken, default=max(turns, default=0))
