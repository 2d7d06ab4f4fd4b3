"""Split an instruction into dialogue, positions of media and offered labels, by the patterns of its pack."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from tasks.media import ImagePart, ImageRef, Part, TextPart, VideoPart, VideoRef
from tasks.packs.pack import TaskPack

PLACEHOLDER, VIDEO_PLACEHOLDER = "<image>", "<video>"
_PLACEHOLDERS = re.compile(f"({PLACEHOLDER}|{VIDEO_PLACEHOLDER})")


class Slot(NamedTuple):
    """The position of an image or a recording between texts."""

    placeholder: str
    """PLACEHOLDER or VIDEO_PLACEHOLDER."""
    turn: int


@dataclass(frozen=True)
class Cut:
    """The content of an instruction, without the label list and what the pack's `strip` patterns match."""

    pieces: tuple[TextPart | Slot, ...]
    offered: tuple[str, ...] | None
    """The labels that the instruction lists, in that order; None if it has no list or the list cannot be parsed."""

    def parts(self, images: Sequence[ImageRef], videos: Sequence[VideoRef] = ()) -> tuple[Part, ...]:
        """Return the pieces as sample parts: the first image takes the first image position, and so on.

        There must be as many of them as `count_slots` returns for each placeholder.
        """
        upcoming = {
            PLACEHOLDER: (ImagePart(image=image) for image in images),
            VIDEO_PLACEHOLDER: (VideoPart(video=video) for video in videos),
        }
        return tuple(
            p if isinstance(p, TextPart) else next(upcoming[p.placeholder]).model_copy(update={"turn": p.turn})
            for p in self.pieces
        )

    def find_latest_user_turn(self, task: TaskPack) -> int:
        """Return the number of the user's latest turn; 0 if the instruction has no turns."""
        return task.find_latest_user_turn((p.turn, p.text if isinstance(p, TextPart) else "") for p in self.pieces)

    def count_slots(self, placeholder: str) -> int:
        """Return the number of positions of images or of recordings."""
        return sum(isinstance(piece, Slot) and piece.placeholder == placeholder for piece in self.pieces)


def cut_instruction(instruction: str, task: TaskPack) -> Cut:
    """Split `instruction` by the patterns of `task`.

    No piece extends over two turns. The texts of all pieces together are the dialogue without its placeholders.
    """
    text = instruction.replace("\r\n", "\n")
    offered = None
    if task.label_list is not None:
        matches = list(task.label_list.finditer(text))
        if matches:
            last = matches[-1]
            offered = parse_list(last[1] or "")
            text = text[: last.start()] + text[last.end() :]
    for pattern in task.strip:
        text = pattern.sub("", text)
    text = text.strip()
    pieces: list[TextPart | Slot] = []
    for turn, segment in _turns(text, task.turn):
        for run in _PLACEHOLDERS.split(segment):
            if run in (PLACEHOLDER, VIDEO_PLACEHOLDER):
                pieces.append(Slot(run, turn))
            elif run.strip():
                pieces.append(TextPart(text=run, turn=turn))
    return Cut(tuple(pieces), offered)


def _turns(text: str, pattern: re.Pattern[str] | None) -> list[tuple[int, str]]:
    """Return (turn number, text) of each turn, from 1; turn 0 is the text before the first."""
    starts = [match.start() for match in pattern.finditer(text)] if pattern else []
    # A line break belongs to the turn after it, so that dropping a turn leaves no empty line.
    starts = [start - 1 if start and text[start - 1] == "\n" else start for start in starts]
    bounds = [0, *starts, len(text)]
    return [(turn, text[bounds[turn] : bounds[turn + 1]]) for turn in range(len(bounds) - 1)]


def parse_list(text: str) -> tuple[str, ...] | None:
    """Return the names in a list written as JSON, as Python, or separated by 、 , or ，; None for anything else."""
    values = parse_literal_list(text)
    if values is None:
        values = [name.strip(" \n\t\"'“”‘’") for name in re.split("[、,，]", text.strip().strip("[]"))]
    names = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    return tuple(dict.fromkeys(names)) if names and len(names) == len(values) else None


def parse_literal_list(text: str) -> list[object] | None:
    """Return the list that is written in `text` as JSON or Python; None if `text` is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            value: object = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list):
            return cast(list[object], value)
    return None
