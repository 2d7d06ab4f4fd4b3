"""Read raw items from JSON arrays and JSON Lines."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tasks.errors import ManifestError
from tasks.items.coco import is_coco, list_coco_items
from tasks.items.foreign_files import explain_foreign_object
from tasks.items.raw_items import RawItem, describe_type, find_repeated, is_utf8, legible, read_text
from tasks.items.refusals import Reason, Unusable
from tasks.packs.columns import DEFAULT_COLUMNS, Columns


def read_json(manifest: Path, columns: Columns | None, _: Path | None) -> Iterator[RawItem]:
    """Yield the items of an array, of a single object, or of JSON Lines; raises ManifestError."""
    text = read_text(manifest)
    if not text.strip():
        raise ManifestError(f"{manifest}: the file is empty; write a JSON array of items, or one item per line")
    try:
        content = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            yield from _lines(manifest, text)
            return
        raise _not_json(manifest, error) from error
    if isinstance(content, dict):
        fields = cast(dict[str, object], content)
        columns = columns or DEFAULT_COLUMNS
        if is_coco(fields) and columns.boxes is not None:
            for number, value in enumerate(list_coco_items(fields, columns), 1):
                yield RawItem(f"item-{number}", f"image {number}", value)
            return
        foreign = explain_foreign_object(fields, columns)
        if foreign is not None:
            raise ManifestError(f"{manifest}: {foreign}")
        if any(name in fields for name in columns.needed):
            yield _make_json_item("item-1", "item 1", fields)
            return
    if isinstance(content, list):
        for number, value in enumerate(cast(list[object], content), 1):
            yield _make_json_item(f"item-{number}", f"item {number}", value)
    else:
        raise ManifestError(f"{manifest}, line 1: contains a single {describe_type(content)}; write an array of items")


def read_json_lines(manifest: Path, columns: Columns | None, _: Path | None) -> Iterator[RawItem]:
    """Yield one item per line; raises ManifestError when no line is valid."""
    text = read_text(manifest)
    if re.match(r"\s*\[\s*\{", text):
        yield from read_json(manifest, columns, None)  # an array under another name
    else:
        yield from _lines(manifest, text)


def _lines(manifest: Path, text: str) -> Iterator[RawItem]:
    """Yield one item per line; a bad line is a bad item. Raises ManifestError when no line is valid."""
    first_error: tuple[int, Exception] | None = None
    good = 0
    # Only \n ends a line: str.splitlines would also cut at U+2028, which JSON allows inside strings.
    for number, line in enumerate(text.split("\n"), 1):
        name, where = f"line-{number}", f"line {number}"
        if not line.strip():
            continue
        if not is_utf8(line):
            good += 1
            yield RawItem(name, where, None, Unusable(Reason.NOT_UTF8, "contains bytes that are not UTF-8"))
            continue
        try:
            value: object = json.loads(line, object_pairs_hook=_Object)
            good += 1
            yield _make_json_item(name, where, value)
        except (ValueError, RecursionError) as error:
            first_error = first_error or (number, error)
            yield RawItem(name, where, None, Unusable(Reason.MALFORMED, f"is not JSON: {error}"))
    if first_error and not good:
        raise _not_json(manifest, first_error[1], first_error[0]) from first_error[1]


class _Object(dict[str, object]):
    """A JSON object. Of several values with the same key, a plain dict would keep only the last."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.repeated = [] if len(self) == len(pairs) else find_repeated(key for key, _ in pairs)


def _make_json_item(name: str, where: str, value: object) -> RawItem:
    if not isinstance(value, _Object) or not value.repeated:
        return RawItem(name, where, value)
    detail = f"contains the key `{legible(value.repeated[0])}` more than once; keep one, or rename the others"
    return RawItem(name, where, value, Unusable(Reason.DUPLICATE_KEY, detail))


def _not_json(manifest: Path, error: Exception, line: int | None = None) -> ManifestError:
    if isinstance(error, json.JSONDecodeError):
        place = f", line {line or error.lineno}, column {error.colno}"
        return ManifestError(f"{manifest}{place}: not JSON: {error.msg}; correct the file there, or export it again")
    return ManifestError(f"{manifest}, line {line or 1}: not JSON: {error}; export the file again")
