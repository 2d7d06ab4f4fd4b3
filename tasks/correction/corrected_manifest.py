"""Write copies of the labelled manifests with the corrected labels, in the original format.

A copy differs from its manifest only in the changed labels and in the items that correction drops, which are left out.
Items that the intake refused are kept. JSON, JSON Lines and CSV are edited as text, not parsed and rewritten. This
preserves key order, spaces, quotes, line ends, a byte-order mark, long numbers, NaN and lines that are not valid JSON.
A Parquet copy keeps rows, types and metadata, but has pyarrow's default compression and row groups. A file without
changes is copied byte for byte.
"""

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import ConfigError, ManifestError
from tasks.items.ids import find_own_id
from tasks.items.manifests import list_manifest_files, read_items
from tasks.items.samples import read_label
from tasks.items.tables import clean_name
from tasks.packs.columns import Columns
from tasks.packs.label_names import find_equal_label
from tasks.records import Action, Correction, Sample
from tasks.storage.files import write_bytes
from tasks.storage.json_lines import write_json_lines

FOLDER, CHANGES = "corrected", "corrections.jsonl"
"""Names in the stage's folder: the folder with the copies, and the file with one line per changed item."""

_ARRAY = re.compile(r"\ufeff?[ \t\n\r]*\[")
_OPENING = re.compile(r"\ufeff?[ \t\n\r]*[\[{][ \t\n\r]*")
_NEXT = re.compile(r"[ \t\n\r]*[,:]?[ \t\n\r]*")
_LINE = re.compile(r"[^\n]+\n?")
_CELL = re.compile(r'("[^"]*(?:""[^"]*)*"|[^,\r\n]*)(?:,|\r|\n|$)')
_DECODER = json.JSONDecoder()

_Label = str | int | float
_Edits = Mapping[int, _Label | None]
"""Maps an item's index in `read_items` to the new value of its label field, or to None to leave the item out."""


class _Span(NamedTuple):
    start: int
    end: int


def check_not_own_copy(manifest: Path, folder: Path) -> None:
    """Raise ConfigError if `manifest` is a corrected copy in the stage's own `folder`: a run would overwrite it."""
    if manifest.resolve().is_relative_to((folder / FOLDER).resolve()):
        raise ConfigError(
            f"{manifest}: is a corrected copy that this run would overwrite; move it out of {folder / FOLDER}"
        )


def write_corrected(
    manifest: Path, columns: Columns, samples: Sequence[Sample], corrections: Sequence[Correction], folder: Path
) -> list[str]:
    """Write `folder`/corrected/<name> for each manifest file, and `folder`/corrections.jsonl; each file atomically.

    `corrections` has one entry per sample, in the order of `samples`. Returns the ids of the items that could not be
    corrected, because their label has changed since it was judged or because they are no longer in the manifest. These
    items stay unchanged and are not in corrections.jsonl. Raises ManifestError if a manifest can't be read.
    """
    decided = list(zip(samples, corrections, strict=True))
    changes = {s.id: c for s, c in decided if c.action in (Action.RELABEL, Action.DROP)}
    written: set[str] = set()
    files = list_manifest_files(manifest) if os.path.isdir(manifest) else [manifest]
    for file in files:
        written |= _write_copy(file, columns, changes, folder / FOLDER / file.name)
    for copy in (folder / FOLDER).iterdir():
        if copy.name not in {file.name for file in files} and copy.is_file():
            copy.unlink()  # its manifest is no longer in the set
    lines = [
        {"source": s.source, "id": s.id, "given": c.given, "now": c.label, "why": c.why, "reviewed": c.reviewed}
        for s, c in decided
        if s.id in written
    ]
    write_json_lines(folder / CHANGES, lines)
    return [i for i in changes if i not in written]


def _write_copy(file: Path, columns: Columns, wanted: Mapping[str, Correction], copy: Path) -> set[str]:
    """Write the copy of one manifest and return the ids in `wanted` that were changed."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror or error}; check its permissions") from error
    edits, changed = _find_edits(file, columns, wanted) if wanted else ({}, set[str]())
    if not edits:
        write_bytes(copy, data)
        return changed
    if file.read_bytes() != data:
        raise ManifestError(f"{file}: changed while it was being read; run again")
    column = columns.output or ""
    if file.suffix.lower() == ".parquet":
        write_bytes(copy, _edit_table(data, column, edits))
    else:
        text = _edit_text(data.decode("utf-8", "surrogateescape"), file.suffix.lower(), column, edits)
        write_bytes(copy, text.encode("utf-8", "surrogateescape"))
    return changed


def _find_edits(file: Path, columns: Columns, wanted: Mapping[str, Correction]) -> tuple[_Edits, set[str]]:
    """Return the edits and the ids of the edited items.

    All items with the same id and label are edited. Otherwise their labels would contradict each other, and the copy
    could not be read again.
    """
    edits: dict[int, _Label | None] = {}
    changed: set[str] = set()
    for index, item in enumerate(read_items(file, columns)):
        correction = wanted.get(find_own_id(item, columns) or "")
        output = (item.fields or {}).get(columns.output or "")
        text = read_label(output)
        if correction is None or not isinstance(text, str) or find_equal_label(text, [correction.given or ""]) is None:
            continue
        edits[index] = None if correction.label is None else _spell(correction.label, output, text)
        changed.add(correction.sample_id)
    return edits, changed


def _spell(label: str, old: object, text: str) -> _Label:
    """Return the new label as the manifest writes labels: with the spaces around the old one, or as a number."""
    if isinstance(old, str):
        return old.replace(text, label, 1)
    if isinstance(old, bool):
        return {"true": True, "false": False}.get(label, label)
    try:
        return int(label) if isinstance(old, int) else float(label)
    except ValueError:
        return label


# --- text ----------------------------------------------------------------------------------------------------


def _edit_text(text: str, suffix: str, column: str, edits: _Edits) -> str:
    ascii_only = text.isascii()
    begin = int(text.startswith("\ufeff"))
    number = 0
    if suffix == ".csv":
        number, spans = _find_records(text, column)
    elif _ARRAY.match(text) and _is_json(text[begin:]):
        spans = _find_array_items(text)
    elif suffix == ".json" and _is_json(text[begin:]):
        spans = [_Span(begin, len(text))]
    else:
        spans = [_Span(*line.span()) for line in _LINE.finditer(text, begin) if line[0].strip()]
    parts = [text[: spans[0].start]]
    for i, (start, end) in enumerate(spans):
        label = edits.get(i, "")
        if label is None:
            continue
        if len(parts) > 1:  # the comma or blank lines between items; the text before the first item is already there
            parts.append(text[spans[i - 1].end : start])
        if i not in edits:
            parts.append(text[start:end])
            continue
        if suffix == ".csv":
            place = _Span(*next(islice(_CELL.finditer(text, start), number, None)).span(1))
            label = str(label)
            quoted = text[place.start] == '"' or not set(label).isdisjoint(',"\r\n')
            spelled = '"' + label.replace('"', '""') + '"' if quoted else label
        else:
            place = _find_value(text, start, column)
            spelled = json.dumps(label, ensure_ascii=ascii_only)
        parts.append(text[start : place.start] + spelled + text[place.end : end])
    return "".join([*parts, text[spans[-1].end :]])


def _is_json(text: str) -> bool:
    """Return whether the text is one JSON value; a .json file may also contain JSON Lines."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _find_array_items(text: str) -> list[_Span]:
    """Return the span of each value of an array, without the spaces and commas around it."""
    spans: list[_Span] = []
    at = _skip(_OPENING, text, 0)
    while text[at] != "]":
        spans.append(_Span(at, _DECODER.raw_decode(text, at)[1]))
        at = _skip(_NEXT, text, spans[-1].end)
    return spans


def _find_value(text: str, start: int, name: str) -> _Span:
    """Return the span of the field's value in an object; of repeated fields the last counts, as in `json.loads`."""
    found = _Span(0, 0)
    at = _skip(_OPENING, text, start)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _skip(_NEXT, text, at)
        value = _Span(at, _DECODER.raw_decode(text, at)[1])
        at = _skip(_NEXT, text, value.end)
        if key == name:
            found = value
    return found


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _find_records(text: str, column: str) -> tuple[int, list[_Span]]:
    """Return the number of the column in a CSV file, and the span of each record, with its line end."""
    begin = int(text.startswith("\ufeff"))
    lines = io.StringIO(text[begin:], newline="").readlines()
    starts = list(accumulate((len(line) for line in lines), initial=begin))
    rows = csv.reader(lines, strict=True)
    header: list[str] = []
    spans: list[_Span] = []
    seen = 0
    for row in rows:
        if row and not header:
            header = [clean_name(name) for name in row]
        elif row:
            spans.append(_Span(starts[seen], starts[rows.line_num]))
        seen = rows.line_num
    # Of repeated columns the last counts, as in the manifest reader.
    return len(header) - 1 - header[::-1].index(column), spans


# --- Parquet -------------------------------------------------------------------------------------------------


def _edit_table(data: bytes, name: str, edits: _Edits) -> bytes:
    """Return the edited file. Unchanged cells are passed on as Arrow slices, so even text that isn't UTF-8 is kept."""
    table = pq.ParquetFile(pa.BufferReader(data)).read()
    number = table.schema.get_field_index(name)
    column, chunks, at = table.column(number), [], 0
    for row, label in edits.items():
        if label is not None:
            chunks += [*column.slice(at, row - at).chunks, pa.array([label], column.type)]
            at = row + 1
    whole = pa.chunked_array([*chunks, *column.slice(at).chunks], column.type)
    table = table.set_column(number, table.schema.field(number), whole).unify_dictionaries()
    table = table.filter(pa.array(edits.get(row, "") is not None for row in range(table.num_rows)))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
