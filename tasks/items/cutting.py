"""Cuts an instruction, as its pack says, into dialogue, places of images, and the labels it offers."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from tasks.packs.pack import TaskPack
from tasks.records import ImagePart, ImageRef, Part, TextPart

PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class ImageSlot:
    """The place of an image between texts."""

    turn: int


@dataclass(frozen=True)
class Cut:
    """What an instruction holds besides role sentence and orders."""

    pieces: tuple[TextPart | ImageSlot, ...]
    offered: tuple[str, ...] | None
    """The labels it lists, in its order; None when it lists none that can be read."""

    def parts(self, images: Sequence[ImageRef]) -> tuple[Part, ...]:
        """The pieces with `images` in their places, in order; there must be `slots` of them."""
        upcoming = iter(images)
        return tuple(
            ImagePart(image=next(upcoming), turn=piece.turn) if isinstance(piece, ImageSlot) else piece
            for piece in self.pieces
        )

    @property
    def slots(self) -> int:
        """How many images it has a place for."""
        return sum(isinstance(piece, ImageSlot) for piece in self.pieces)


def cut_instruction(instruction: str, task: TaskPack) -> Cut:
    """Cut `instruction`; concatenated, the texts are the dialogue as it stood, each turn a part of its own."""
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
    pieces: list[TextPart | ImageSlot] = []
    for turn, segment in _turns(text, task.turn):
        for i, run in enumerate(segment.split(PLACEHOLDER)):
            if i:
                pieces.append(ImageSlot(turn))
            if run.strip():
                pieces.append(TextPart(text=run, turn=turn))
    return Cut(tuple(pieces), offered)


def _turns(text: str, pattern: re.Pattern[str] | None) -> list[tuple[int, str]]:
    """The text cut at its turns, numbered from 1; 0 is what stands before the first."""
    starts = [match.start() for match in pattern.finditer(text)] if pattern else []
    # The line break goes with the turn that it opens, so that a turn can be dropped without a trace.
    starts = [start - 1 if start and text[start - 1] == "\n" else start for start in starts]
    bounds = [0, *starts, len(text)]
    return [(turn, text[bounds[turn] : bounds[turn + 1]]) for turn in range(len(bounds) - 1)]


def parse_list(text: str) -> tuple[str, ...] | None:
    """A list of names written as JSON, as Python, or with 、 , ， between them; None when it is none of these."""
    values = parse_literal_list(text)
    if values is None:
        values = [name.strip(" \n\t\"'“”‘’") for name in re.split("[、,，]", text.strip().strip("[]"))]
    names = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    return tuple(dict.fromkeys(names)) if names and len(names) == len(values) else None


def parse_literal_list(text: str) -> list[object] | None:
    """The list that `text` spells in JSON or in Python; None when it spells none."""
    for read in (json.loads, ast.literal_eval):
        try:
            value: object = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list):
            return cast(list[object], value)
    return None
