"""Draw general-purpose conversations from a file of any length, and check them.

Mixing them into the training set helps the model to keep its other abilities. A row has the format of LLaMA-Factory
and ms-swift: ``{"messages": [{"role", "content"}, …], "images": [file names]}``. It may begin with a system turn. Also
read are ShareGPT's ``{"conversations": [{"from", "value"}, …]}`` and contents that are lists of parts (``{"type":
"text", "text"}``, ``{"type": "image", "image"}``), as OpenAI and TRL have them.
"""

import heapq
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
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
from tasks.errors import ManifestError, TooManyFailures
from tasks.items.image_names import ImageFolder
from tasks.items.images import MAX_PIXELS, check_image
from tasks.items.refusals import Unusable
from tasks.media import ImagePart, Part, TextPart
from tasks.models.failures import LEAST
from tasks.prompts.turns import IMAGE_TOKEN, VIDEO_TOKEN, escape_placeholder
from tasks.records import Example, Message, Origin, Sample, Split
from tasks.storage.json_lines import read_lines


class MixReason(StrEnum):
    """Why a drawn row can't be used. For an unusable image, the reason code is one of those of the intake."""

    MALFORMED = "mix_malformed"
    """The row is not JSON, or not an object with valid `messages` and `images`."""
    VIDEO = "mix_has_video"
    """The row has recordings. They are not extracted, and without them its text would be trained on alone."""
    TURNS = "mix_turns"
    """After an optional system turn, user and assistant do not alternate, or a turn has no text."""
    PLACEHOLDERS = "mix_placeholder_mismatch"
    """The user's turns do not contain exactly one `<image>` per image, or another turn contains `<image>`."""


@dataclass(frozen=True)
class MixRow:
    """A drawn row: either an example, or the reason code and details that say why the row is unusable."""

    id: str
    example: Example | None
    reason: str = ""
    detail: str = ""
    source: str = ""
    """Absolute path of the file, if there is no example."""


def draw_share(settings: MixSettings, others: int, seed: int) -> list[MixRow]:
    """Draw enough rows to reach the mix's share next to `others` items, and 10 % more to replace unusable rows."""
    most = round(others * settings.share / (1 - settings.share) * 1.1) + 20
    return draw_mix(settings.file, settings.images or settings.file.parent, most, seed)


def check_share(settings: MixSettings, others: int, seed: int) -> int:
    """Return how many of the wanted examples a mix lacks next to `others` items; 0 if it has enough.

    Raises TooManyFailures, which names the commonest cause, if it has less than half of them, and ManifestError if the
    file can't be read.
    """
    rows = draw_share(settings, others, seed)
    wanted = round(others * settings.share / (1 - settings.share))
    unusable = [row for row in rows if row.example is None]
    usable = len(rows) - len(unusable)
    if is_too_short(usable, wanted):
        raise TooManyFailures(explain_shortage(settings, usable, wanted, len(rows), unusable))
    return max(0, wanted - usable)


def is_too_short(usable: int, wanted: int) -> bool:
    """Return whether a mix has less than half of the examples that its share needs."""
    short = wanted - usable
    return short >= LEAST and usable <= short


def explain_shortage(settings: MixSettings, usable: int, wanted: int, rows: int, unusable: Sequence[MixRow]) -> str:
    """Return a message about a mix that is too short, with the commonest reason code in `unusable`."""
    cause = f"it has only {rows:,} rows"
    if unusable:
        [(reason, times)] = Counter(row.reason for row in unusable).most_common(1)
        first = next(row for row in unusable if row.reason == reason)
        cause = f"most frequent: {reason}, {times:,} times, e.g. {first.id} ({first.detail})"
    return (
        f"{settings.file} gives {usable:,} of the {wanted:,} examples that `emit.mix.share: {settings.share:g}` asks "
        f"for; {cause}; correct the file, or lower `emit.mix.share`, and run again"
    )


def draw_mix(file: Path, images: Path, count: int, seed: int) -> list[MixRow]:
    """Return up to `count` checked rows of a JSON array or JSON Lines file, drawn at random and in random order.

    The same file and seed give the same order, so a smaller `count` returns the first rows of a larger one. The file is
    read once. Only drawn rows are kept in memory, and only their images are opened; image names are relative to the
    folder `images`. Raises ManifestError if the file can't be read or contains no rows, or if there is no such folder.
    """
    root = images.resolve()
    if not root.is_dir():
        raise ManifestError(f"{images}: no such image folder (needed for {file}); correct `emit.mix.images`")
    rng = Random(seed)
    drawn = heapq.nsmallest(count, ((rng.random(), number, row) for number, row in enumerate(_read_rows(file), 1)))
    if count and not drawn:
        raise ManifestError(f"{file}: contains no rows; set `emit.mix.file` to a file with conversations")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        folder = ImageFolder(root)
        return [_check_row(f"mix-{number}", row, file, folder) for _, number, row in drawn]


def convert_to_sample(row: Example) -> Sample:
    """Convert a row to a sample, so that its duplicates can be found.

    The texts and images of the user's turns become the parts, and the assistant's answers become the given label.
    """
    parts: list[Part] = []
    shown = iter(row.images)
    for message in row.messages:
        for i, text in enumerate(message.content.split(IMAGE_TOKEN) if message.role == "user" else ()):
            parts += [ImagePart(image=next(shown))] if i else []
            parts += [TextPart(text=text)] if text.strip() else []
    reply = "\n".join(m.content for m in row.messages if m.role == "assistant")
    return Sample.model_construct(
        id=row.sample_id, task="", parts=tuple(parts), labels=(), given=reply, split=Split.UNLABELLED, source=row.source
    )


def _read_rows(file: Path) -> Iterator[object]:
    try:
        with file.open("rb") as opened:
            start = opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            opened.seek(0)
            if start == b"[":
                yield from ijson.items(opened, "item", use_float=True)
                return
        for _, line in read_lines(file, ManifestError, "correct `emit.mix.file`"):
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Unusable(MixReason.MALFORMED, f"is not JSON: {error}")
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror or error}; correct `emit.mix.file`") from error
    except (ijson.JSONError, UnicodeError) as error:
        why = str(error).splitlines()[0]  # further lines only point at the position
        raise ManifestError(f"{file}: not JSON: {why}; correct the file") from error


def _check_row(identity: str, row: object, file: Path, root: ImageFolder) -> MixRow:
    try:
        return MixRow(identity, _parse_example(identity, row, file, root))
    except Unusable as why:
        return MixRow(identity, None, why.reason, f"{file.name}: {why.detail}", str(file.resolve()))


def _parse_example(identity: str, row: object, file: Path, root: ImageFolder) -> Example:
    if isinstance(row, Unusable):
        raise row
    fields: dict[str, Any] = cast(Any, row) if isinstance(row, dict) else {}
    if fields.get("videos") or fields.get("video"):
        raise Unusable(MixReason.VIDEO, _NO_VIDEO)
    named: list[object] = []
    try:
        messages = tuple(
            _parse_turn(turn, named) for turn in fields["messages" if "messages" in fields else "conversations"]
        )
    except (KeyError, TypeError, ValidationError) as error:
        why = "`messages` must be a list of objects with role and content, or `conversations` one with from and value"
        raise Unusable(MixReason.MALFORMED, why) from error
    roles = [m.role for m in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2) or not all(m.content.strip() for m in messages):
        raise Unusable(MixReason.TURNS, f"turns must alternate user, assistant, none empty; they are {roles}")
    one = fields.get("image")
    names: Any = fields.get("images") or ([one] if isinstance(one, str) else one) or named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unusable(MixReason.MALFORMED, "`images` must be a list of file names")
    slots = {role: sum(m.content.count(IMAGE_TOKEN) for m in messages if m.role == role) for role in roles}
    if slots["user"] != len(names) or sum(slots.values()) != slots["user"]:
        raise Unusable(MixReason.PLACEHOLDERS, f"`<image>` by role {slots}, {len(names)} images")
    return Example(
        sample_id=identity,
        messages=tuple(m.model_copy(update={"content": escape_content(m)}) for m in messages),
        images=tuple(check_image(root.find(name), MAX_PIXELS) for name in names),
        label="",
        origin=Origin.MIX,
        why="general-purpose example",
        source=str(file.resolve()),
    )


_NO_VIDEO = "has recordings, which a mix can't have; give their frames as `images`, or leave such rows out"
_ROLES: dict[Any, Any] = {"human": "user", "gpt": "assistant"}


def _parse_turn(turn: Any, named: list[object]) -> Message:
    """Return a turn in any of the formats; image parts become placeholders, and their names are added to `named`."""
    role, content = (turn["from"], turn["value"]) if "from" in turn else (turn["role"], turn["content"])
    if isinstance(content, list):
        texts: list[str] = []
        for part in cast(list[Any], content):
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] in ("image", "image_url"):
                image = part.get("image") or part.get("image_url")
                image = image.get("url") if isinstance(image, dict) else image
                named += [image] if image is not None else []
                texts.append(IMAGE_TOKEN)
            elif part["type"] in ("video", "video_url"):
                raise Unusable(MixReason.VIDEO, _NO_VIDEO)
            else:
                raise Unusable(
                    MixReason.MALFORMED, f"contains a part of type {part['type']!r}, which no model is shown"
                )
        content = "".join(texts)
    message = Message(role=_ROLES.get(role, role), content=content)
    # as no row has recordings, `<video>` is text
    plain = message.content.replace(VIDEO_TOKEN, escape_placeholder(VIDEO_TOKEN))
    return message.model_copy(update={"content": plain})
