"""Turn rows of other programs into plain rows with the label under `output`."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import unquote

from tasks.items.cutting import PLACEHOLDER, VIDEO_PLACEHOLDER
from tasks.items.foreign_files import rank_column

Row = dict[str, Any]
"""The fields of an item as its file has them; empty for an item that cannot be read."""

LABEL = "output"
_TURN_KEYS = (("from", "value"), ("role", "content"))
_INLINE_IMAGE = re.compile(
    r"(?:Picture\s*\d+\s*[:：]\s*)?(?:<img>(.+?)</img>|<\|vision_start\|>([^<>|]+)<\|vision_end\|>)"
)
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
_LOOKED_AT = 50


def convert_rows(rows: Sequence[Row]) -> tuple[str, list[Row]] | None:
    """Return the name of the rows' format and one plain row per row; None if the rows are plain already."""
    seen = [row for row in rows[:_LOOKED_AT] if row]
    if not seen:
        return None
    if all(isinstance(row.get("data"), dict) and ("annotations" in row or "completions" in row) for row in seen):
        return "Label Studio export", _convert_annotations(rows)
    if sum(bool(_find_turns(row)) for row in seen) * 2 > len(seen):
        return "conversations", _convert_conversations(rows)
    if all({"instruction", "input", "output"} <= row.keys() for row in seen) and any(row["input"] for row in seen):
        return "instructions with an input", [_join_input(row) for row in rows]
    return None


def _join_input(row: Row) -> Row:
    texts = [text for key in ("instruction", "input") if isinstance(text := row.get(key), str) and text]
    return {key: value for key, value in row.items() if key != "input"} | {"instruction": "\n".join(texts)}


# --- conversations -------------------------------------------------------------------------------------------


def _find_turns(row: Row) -> list[Mapping[str, Any]]:
    """Return all turns of a row: those under `messages` or `conversations`, or under `prompt` and `completion`."""
    found: list[Mapping[str, Any]] = []
    for value in row.values():
        turns = cast(list[Any], value) if isinstance(value, list) else []
        if turns and all(
            isinstance(turn, dict) and any({*keys} <= turn.keys() for keys in _TURN_KEYS) for turn in turns
        ):
            found += turns
    return found


def _convert_conversations(rows: Sequence[Row]) -> list[Row]:
    """Return rows whose text is all that precedes the last answer (system turns left out), and whose label is that."""
    read = [_read_conversation(row) for row in rows]
    key = _find_label_key([answer for _, answer in read])
    return [plain | {LABEL: _get_label(answer, key)} for plain, answer in read]


def _read_conversation(row: Row) -> tuple[Row, str | None]:
    turns = [(turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))) for turn in _find_turns(row)]
    turns = [(role, content) for role, content in turns if role != "system"]
    answer = _flatten(turns.pop()[1], [], []) if len(turns) > 1 and turns[-1][0] not in ("user", "human") else None
    named: list[str] = []
    recorded: list[object] = []
    texts = [_flatten(content, named, recorded) for _, content in turns]
    if len(turns) > 1:
        texts = [f"{role}: {text}" for (role, _), text in zip(turns, texts, strict=True)]
    images = row.get("images") or row.get("image") or named
    listed = cast(list[Any], images if isinstance(images, list) else [images])
    names = [name.get("path") if isinstance(name, dict) else name for name in listed]
    plain: Row = {"id": row.get("id"), "instruction": "\n".join(texts), "image": names}
    if videos := row.get("videos") or row.get("video") or recorded:
        plain |= {"video": videos} | {key: row[key] for key in ("fps", "sample_fps") if key in row}
    return plain, answer


def _flatten(content: object, images: list[str], videos: list[object]) -> str:
    """Return a turn's text with `<image>` and `<video>` for the media in it, whose names are added to the lists."""
    if isinstance(content, list):
        return "".join(_flatten(part, images, videos) for part in cast(list[object], content))
    if isinstance(content, dict):
        part = cast(Row, content)
        if part.get("type") in ("image", "image_url"):
            images += [name for name in (part.get("image"), part.get("path")) if isinstance(name, str)]
            return PLACEHOLDER
        if part.get("type") in ("video", "video_url"):
            videos += [name for name in (part.get("video"), part.get("path")) if isinstance(name, str | list)]
            return VIDEO_PLACEHOLDER
        return _flatten(part.get("text"), images, videos)

    def replace(match: re.Match[str]) -> str:
        images.append(match[1] or match[2])
        return PLACEHOLDER

    return _INLINE_IMAGE.sub(replace, content) if isinstance(content, str) else ""


def _parse_answer(answer: str | None) -> Row | None:
    try:
        value: object = json.loads(_THOUGHT.sub("", answer or ""))
    except (ValueError, RecursionError):
        return None
    return cast(Row, value) if isinstance(value, dict) else None


def _find_label_key(answers: Sequence[str | None]) -> str | None:
    """Return the key of the label in answers that are JSON objects; None if most are not.

    It is called like a label, or has the fewest different values, but more than one.
    """
    objects = [found for answer in answers if (found := _parse_answer(answer))]
    if 2 * len(objects) <= sum(answer is not None for answer in answers):
        return None
    everywhere = [key for key in objects[0] if sum(key in found for found in objects) * 10 >= 9 * len(objects)]
    counts = {key: len({str(found.get(key)) for found in objects}) for key in everywhere}
    return min(counts, key=lambda key: (rank_column(LABEL, key), counts[key] == 1, counts[key]), default=None)


def _get_label(answer: str | None, key: str | None) -> object:
    if answer is None or key is None:
        return answer and _THOUGHT.sub("", answer).strip()
    return (_parse_answer(answer) or {}).get(key)


# --- Label Studio --------------------------------------------------------------------------------------------


def _convert_annotations(rows: Sequence[Row]) -> list[Row]:
    """Return the data of each task with the choice of its latest annotation; none if it has no or several choices."""
    choices = [_read_choices(row) for row in rows]
    controls = Counter(name for made in choices for name in made)
    control = controls.most_common(1)[0][0] if controls else ""
    return [
        {"id": row.get("id")}
        | {key: _localise(value) for key, value in cast(Row, row.get("data") or {}).items()}
        | {LABEL: made[control][0] if len(made.get(control, ())) == 1 else None}
        for row, made in zip(rows, choices, strict=True)
    ]


def _read_choices(row: Row) -> dict[str, list[str]]:
    """Map each control of the labelling page to the choices made there last; skipped annotations do not count."""
    found: dict[str, list[str]] = {}
    for annotation in cast(list[Row], row.get("annotations") or row.get("completions") or []):
        if not annotation.get("was_cancelled"):
            for result in cast(list[Row], annotation.get("result") or []):
                if (made := (result.get("value") or {}).get("choices")) is not None:
                    found[str(result.get("from_name"))] = made
    return found


def _localise(value: object) -> object:
    """Return a path on Label Studio's server as a relative path; any other value as it is."""
    if not isinstance(value, str) or not value.startswith("/data/"):
        return value
    return unquote(value.partition("?d=")[2] or value.removeprefix("/data/"))
