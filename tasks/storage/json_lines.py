"""Read and write JSON Lines. The errors of reading name the file, the line and what is wrong."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson
from pydantic import BaseModel, ValidationError

from tasks.errors import LabelstillError
from tasks.storage.files import write_bytes

M = TypeVar("M", bound=BaseModel)

_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = 1 << 28
"""Maximum bytes of a line: a file with a longer one is not JSON Lines, and would fill the memory."""


def read_lines(file: Path, failure: type[LabelstillError], advice: str) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line) for every non-blank line of `file`. Numbers start at 1; a byte-order mark is removed.

    Raises `failure`, naming the file and ending with `advice`, when the file cannot be read.
    """
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), b""), 1):
                if len(line) == _LONGEST_LINE:
                    raise failure(f"{file}, line {number}: over {_LONGEST_LINE >> 20} MiB, so not JSON Lines; {advice}")
                text = line.removeprefix(_BOM) if number == 1 else line
                if text.strip():
                    yield number, text
    except OSError as error:
        raise failure(f"{file}: cannot be read: {error.strerror or error}; {advice}") from error


def parse_object(line: bytes, place: str, failure: type[LabelstillError], advice: str) -> dict[str, Any]:
    """Return the JSON object in `line`; raise `failure` with `place` and `advice` when it is not a JSON object."""
    try:
        value: object = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # Python's json module writes NaN and Infinity, which JSON does not allow.
        odd = next((word for word in (b"NaN", b"Infinity") if word in line), None)
        why = f"{odd.decode()} is not a JSON number" if odd else str(error)
        raise failure(f"{place}: not JSON: {why}; {advice}") from error
    if not isinstance(value, dict):
        raise failure(f"{place}: must be a JSON object; {advice}")
    return cast(dict[str, Any], value)


def read_objects(file: Path, failure: type[LabelstillError], advice: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, JSON object) for every line of `file`; raise `failure`, naming the line, for a bad one."""
    for number, line in read_lines(file, failure, advice):
        yield number, parse_object(line, f"{file}, line {number}", failure, advice)


def read_models(file: Path, model: type[M], what: str, failure: type[LabelstillError], advice: str) -> Iterator[M]:
    """Yield every line of `file` as a `model`; raise `failure`, naming the line, when one is not a valid `what`."""
    for number, line in read_lines(file, failure, advice):
        try:
            yield model.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            why = ": ".join([*map(str, first["loc"]), first["msg"]])
            raise failure(f"{file}, line {number}: not a valid {what} ({why}); {advice}") from error


def dump_json_lines(rows: Iterable[object]) -> bytes:
    """Return one line of JSON per row; a row is a pydantic model or anything that orjson accepts."""
    return b"".join(orjson.dumps(row, default=_plain, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def write_json_lines(path: Path, rows: Iterable[object]) -> None:
    """Write `rows` as JSON Lines, atomically."""
    write_bytes(path, dump_json_lines(rows))


def write_json(path: Path, value: object) -> None:
    """Write one value (a pydantic model, or anything that orjson accepts) as indented JSON, atomically."""
    write_bytes(path, orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2))


def escape_json(text: str) -> str:
    """Return `text` escaped for use between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")
