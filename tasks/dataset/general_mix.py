# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (ijson publishes no types)
"""General-purpose conversations, mixed in against forgetting: drawn from a file of any length, checked like all else.

A row is as LLaMA-Factory and ms-swift have it: ``{"messages": [{"role", "content"}, …], "images": [file names]}``; a
system turn may stand first.
"""

import heapq
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, cast

import ijson
import orjson
from PIL import Image
from pydantic import ValidationError

from tasks.dataset.export.conversation import escape_content
from tasks.dataset.settings import MixSettings
from tasks.errors import ManifestError
from tasks.items.images import MAX_PIXELS, check_image, find_image_file
from tasks.items.refusals import Unusable
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example, ImagePart, Message, Origin, Part, Sample, Split, TextPart
from tasks.storage.json_lines import read_lines


class MixReason(StrEnum):
    """Why a drawn row can't be taught, besides the image reasons of the intake."""

    MALFORMED = "mix_malformed"
    """Not JSON, or no object with `messages`."""
    TURNS = "mix_turns"
    """Turns don't alternate user, assistant after at most one system turn, or one has no text."""
    PLACEHOLDERS = "mix_placeholder_mismatch"
    """Another number of `<image>` in the user's turns than of images, or one in another turn."""


@dataclass(frozen=True)
class MixRow:
    """A drawn row: an example, or why it is none."""

    id: str
    example: Example | None
    reason: str = ""
    detail: str = ""


def draw_share(settings: MixSettings, others: int, seed: int) -> list[MixRow]:
    """Draw what makes the mix's share beside `others` items, and some more for the rows that will be dropped."""
    most = round(others * settings.share / (1 - settings.share) * 1.1) + 20
    return draw_mix(settings.file, settings.images or settings.file.parent, most, seed)


def draw_mix(file: Path, images: Path, count: int, seed: int) -> list[MixRow]:
    """Up to `count` rows drawn at random from a JSON array or JSON Lines file, in random order, each checked.

    The same rows for the same file, count and seed, and among them those of any smaller count, in the same order. One
    pass over the file; only drawn rows are held and only their images, named relative to `images`, opened. Raises
    ManifestError when the file can't be read, or holds no rows.
    """
    root = images.resolve()
    if not root.is_dir():
        raise ManifestError(f"{images}: no such image folder (for {file}); correct the mix's `images`")
    rng = Random(seed)
    drawn = heapq.nsmallest(count, ((rng.random(), number, row) for number, row in enumerate(_rows(file), 1)))
    if count and not drawn:
        raise ManifestError(f"{file}: holds no rows; point the mix to a file that has some")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return [_checked(f"mix-{number}", row, file, root) for _, number, row in drawn]


def as_sample(row: Example) -> Sample:
    """What a row shows and asks, to be compared with other items: its user turns and images, the answers as caption."""
    parts: list[Part] = []
    shown = iter(row.images)
    for message in row.messages:
        for i, text in enumerate(message.content.split(IMAGE_TOKEN) if message.role == "user" else ()):
            parts += [ImagePart(image=next(shown))] if i else []
            parts += [TextPart(text=text)] if text.strip() else []
    said = "\n".join(m.content for m in row.messages if m.role == "assistant")
    return Sample.model_construct(
        id=row.sample_id, task="", parts=tuple(parts), labels=(), given=said, split=Split.UNLABELLED, source=row.source
    )


def _rows(file: Path) -> Iterator[object]:
    try:
        with file.open("rb") as opened:
            start = opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            opened.seek(0)
            if start == b"[":
                yield from ijson.items(opened, "item", use_float=True)
                return
        for _, line in read_lines(file, ManifestError, "correct the mix's `file`"):
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield _Unfit(MixReason.MALFORMED, f"is not JSON: {error}")
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror or error}; correct the mix's `file`") from error
    except (ijson.JSONError, UnicodeError) as error:
        why = str(error).splitlines()[0]  # the parser draws the place below it
        raise ManifestError(f"{file}: not JSON: {why}; mend the file, or write it anew") from error


def _checked(identity: str, row: object, file: Path, root: Path) -> MixRow:
    try:
        return MixRow(identity, _example(identity, row, file, root))
    except (Unusable, _Unfit) as why:
        return MixRow(identity, None, why.reason, f"{file.name}: {why.detail}")


def _example(identity: str, row: object, file: Path, root: Path) -> Example:
    if isinstance(row, _Unfit):
        raise row
    fields: dict[str, Any] = cast(Any, row) if isinstance(row, dict) else {}
    try:
        messages = tuple(Message(role=m["role"], content=m["content"]) for m in fields["messages"])
    except (KeyError, TypeError, ValidationError) as error:
        raise _Unfit(MixReason.MALFORMED, "no `messages` of role and content that can be read") from error
    roles = [m.role for m in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2) or not all(m.content.strip() for m in messages):
        raise _Unfit(MixReason.TURNS, f"turns must alternate user, assistant, none empty; they are {roles}")
    names: Any = fields.get("images") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Unfit(MixReason.MALFORMED, "`images` is no list of file names")
    slots = {role: sum(m.content.count(IMAGE_TOKEN) for m in messages if m.role == role) for role in roles}
    if slots["user"] != len(names) or sum(slots.values()) != slots["user"]:
        raise _Unfit(MixReason.PLACEHOLDERS, f"`<image>` by role {slots}, {len(names)} images")
    return Example(
        sample_id=identity,
        messages=tuple(m.model_copy(update={"content": escape_content(m)}) for m in messages),
        images=tuple(check_image(find_image_file(name, root), MAX_PIXELS) for name in names),
        label="",
        origin=Origin.MIX,
        why="general-purpose example",
        source=str(file.resolve()),
    )


class _Unfit(Exception):
    """A row that can't be taught; never leaves this room."""

    def __init__(self, reason: MixReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
