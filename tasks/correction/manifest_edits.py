"""Edits of a manifest's bytes: labels replaced, items cut out, all else as it was; and what takes the edits back.

JSON, JSON Lines and CSV are edited as text, never parsed and written anew: spaces, quotes, line ends, order of fields,
numbers and broken lines stay, and `undo_edits` gives the very bytes back. For Parquet see table_edits.py.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, cast

from tasks.correction.table_edits import TableUndo, edit_table, restore_table

UndoLine = dict[str, Any]
"""Fit for JSON. Of text: `{"at", "length", "text"}`: put `text` in the place of `length` characters at `at` of the
edited text, both in characters. Of Parquet: one `table_edits.TableUndo`."""


class _Splice(NamedTuple):
    """Put `text` in the place of [start, end)."""

    start: int
    end: int
    text: str


class _Span(NamedTuple):
    start: int
    end: int


_SPACE = re.compile(r"[ \t\n\r]*")
_CELL = re.compile(r'("[^"]*(?:""[^"]*)*"|[^,\r\n]*)(?:,|\r|\n|$)')
_DECODER = json.JSONDecoder()


def edit(data: bytes, suffix: str, wanted: Mapping[int, str | None]) -> tuple[bytes, list[UndoLine]]:
    """A manifest's bytes with other texts in `output`, and the lines that undo it.

    `suffix` is the file's, one that `manifests.read_items` knows, and `data` is what it has read without an error.
    `wanted` maps an item (its index in `read_items`) to its new `output`, or to None to cut it out; each item in it has
    a text in `output` now.
    """
    if suffix.lower() == ".parquet":
        data, undo = edit_table(data, wanted)
        return data, [cast(UndoLine, undo)]
    text = _decode(data)
    return _apply(text, sorted(_splices(text, suffix.lower(), wanted)))


def undo_edits(data: bytes, suffix: str, lines: Sequence[UndoLine]) -> bytes:
    """The bytes (of Parquet: the rows) that `edit` was given, from the two things it returned."""
    if suffix.lower() == ".parquet":
        return restore_table(data, cast(TableUndo, lines[0]))
    back = [_Splice(line["at"], line["at"] + line["length"], line["text"]) for line in lines]
    return _apply(_decode(data), back)[0]


def digest_of_lines(lines: Sequence[UndoLine]) -> str:
    """Digest (64 hex) of what `undo_edits` is given: a fault in it would spoil the file in silence."""
    # Not `records.digest_of`: an undone text may hold bytes that are not UTF-8.
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _apply(text: str, splices: Sequence[_Splice]) -> tuple[bytes, list[UndoLine]]:
    """`splices` in order, none overlapping another."""
    parts: list[str] = []
    undo: list[UndoLine] = []
    at = length = 0
    for splice in splices:
        parts += [text[at : splice.start], splice.text]
        length += splice.start - at
        undo.append({"at": length, "length": len(splice.text), "text": text[splice.start : splice.end]})
        length += len(splice.text)
        at = splice.end
    return "".join([*parts, text[at:]]).encode("utf-8", "surrogateescape"), undo


def _splices(text: str, suffix: str, wanted: Mapping[int, str | None]) -> Iterator[_Splice]:
    if suffix == ".csv":
        column, spans = _csv_records(text)
        cut = list(spans)
    elif suffix == ".json" and text[_begin(text)] == "[":
        spans, column = _array_items(text), None
        cut = _array_cuts(spans, {item for item, output in wanted.items() if output is None})
    else:
        spans, column = _json_lines(text, one=suffix == ".json"), None
        cut = list(spans)
    for item, output in wanted.items():
        if output is None:
            yield _Splice(*cut[item], "")
        elif column is None:
            place = _value_span(text, spans[item].start, "output")
            yield _Splice(*place, json.dumps(output, ensure_ascii=text.isascii()))
        else:
            place = _cell_span(text, spans[item].start, column)
            quoted = text[place.start] == '"' or not set(output).isdisjoint(',"\r\n')
            yield _Splice(*place, '"' + output.replace('"', '""') + '"' if quoted else output)


# --- JSON ----------------------------------------------------------------------------------------------------


def _begin(text: str) -> int:
    return _skip(text, text.startswith("\ufeff"))


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _array_items(text: str) -> list[_Span]:
    """Each value of an array, without the spaces and commas around it."""
    spans: list[_Span] = []
    at = _skip(text, _begin(text) + 1)
    while text[at] != "]":
        spans.append(_Span(at, _DECODER.raw_decode(text, at)[1]))
        at = _skip(text, spans[-1].end)
        at = _skip(text, at + (text[at] == ","))
    return spans


def _array_cuts(spans: Sequence[_Span], doomed: set[int]) -> list[_Span]:
    """What to cut for each value: with the comma before it, or, where none stays before it, the comma after it."""
    first = next((i for i in range(len(spans)) if i not in doomed), len(spans))
    return [
        _Span(spans[i - 1].end, span.end)
        if i > first
        else _Span(span.start, spans[i + 1].start if i + 1 < len(spans) else span.end)
        for i, span in enumerate(spans)
    ]


def _json_lines(text: str, *, one: bool) -> list[_Span]:
    """Each line that isn't blank, with its end; with `one`, a text that is one object over many lines is one item."""
    begin = int(text.startswith("\ufeff"))
    if one:
        try:
            end = _DECODER.raw_decode(text, _begin(text))[1]
            if _skip(text, end) == len(text):
                return [_Span(begin, end)]
        except (ValueError, RecursionError):
            pass
    lines = text[begin:].split("\n")
    starts = accumulate((len(line) + 1 for line in lines), initial=begin)
    return [
        _Span(start, min(start + len(line) + 1, len(text)))
        for start, line in zip(starts, lines, strict=False)
        if line.strip()
    ]


def _value_span(text: str, start: int, name: str) -> _Span:
    """Where an object's field has its value; of fields with one name the last counts, as for `json.loads`."""
    found = _Span(0, 0)
    at = _skip(text, _skip(text, start) + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        value = _Span(at, _DECODER.raw_decode(text, at)[1])
        if key == name:
            found = value
        at = _skip(text, value.end)
        at = _skip(text, at + (text[at] == ","))
    return found


# --- CSV -----------------------------------------------------------------------------------------------------


def _csv_records(text: str) -> tuple[int, list[_Span]]:
    """Number of the column `output`, and each record's text, with its line end."""
    begin = int(text.startswith("\ufeff"))
    lines = io.StringIO(text[begin:], newline="").readlines()
    starts = list(accumulate((len(line) for line in lines), initial=begin))
    rows = csv.reader(lines, strict=True)
    header: list[str] | None = None
    spans: list[_Span] = []
    seen = 0
    for row in rows:
        if row and header is None:
            header = [name.strip() for name in row]
        elif row:
            spans.append(_Span(starts[seen], starts[rows.line_num]))
        seen = rows.line_num
    # Of columns with one name the last counts, as in `read_items`.
    names = header or []
    return len(names) - 1 - names[::-1].index("output"), spans


def _cell_span(text: str, start: int, column: int) -> _Span:
    for _ in range(column):
        start = _cell(text, start).end()
    return _Span(*_cell(text, start).span(1))


def _cell(text: str, start: int) -> re.Match[str]:
    match = _CELL.match(text, start)
    assert match is not None
    return match
