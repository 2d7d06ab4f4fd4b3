"""An item as its manifest contains it, before it is checked, and the text of a manifest file."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tasks.errors import ManifestError
from tasks.items.refusals import Unusable
from tasks.packs.columns import Columns


@dataclass(frozen=True)
class RawItem:
    """An item as the file contains it. In its strings, lone surrogates stand for bytes that are not UTF-8."""

    fallback_id: str
    """The name that the item gets if it has no id."""
    where: str
    """Its position for messages: `item 3`, `line 3`, `row 3 (line 5)`."""
    value: object
    """In Parquet files, a cell of a column that `columns` does not name is True if it is filled, else None."""
    flaw: Unusable | None = None
    """Why the item cannot be read; None when it can."""

    @property
    def fields(self) -> dict[str, object] | None:
        """Return the item's fields; None if its value is not an object."""
        return cast(dict[str, object], self.value) if isinstance(self.value, dict) else None

    def list_unread(self, columns: Columns) -> list[str]:
        """Return the keys that have a value but that `columns` does not name, so that nothing reads them."""
        fields = self.fields or {}
        return [key for key, value in fields.items() if key not in columns.read and not is_empty(value)]


_FEW_DAMAGED = 3
"""Up to this many lines that are not UTF-8 are damaged; with more, the file may be in Latin-1."""


def count_unread(items: Iterable[RawItem], columns: Columns) -> dict[str, int]:
    """Map each key that nothing reads to the number of items in which it has a value, most frequent first."""
    return dict(Counter(legible(key) for item in items for key in item.list_unread(columns)).most_common())


def is_empty(value: object) -> bool:
    """Return whether a field has no value: null, an empty text, list or object, or NaN, a table's empty cell."""
    if isinstance(value, list | dict):
        return not value
    return value is None or value == "" or value != value


_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel workbook or another ZIP file",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"\x1f\x8b": "a gzip file (unpack it with gunzip)",
    b"BZh": "a bzip2 file (unpack it with bunzip2)",
    b"\xfd7zXZ": "an xz file (unpack it with unxz)",
    b"PAR1": "a Parquet file (name it .parquet)",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
}
"""Maps the first bytes of a file that is no text to what it is."""


def read_text(manifest: Path) -> str:
    """Return the text of a manifest, in which lone surrogates stand for bytes that are not UTF-8.

    Raises ManifestError for another encoding: UTF-16, or when most texts of the file can be read so, GBK, GB18030 or
    Latin-1.
    """
    data = manifest.read_bytes()
    if kind := next((kind for start, kind in _OTHER_KINDS.items() if data.startswith(start)), None):
        raise ManifestError(f"{manifest}: contains {kind}; save or export the items as CSV (UTF-8) or JSON")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError(f"{manifest}: the file is UTF-16; save it as UTF-8")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    encoding = None if is_utf8(text) else _guess_encoding(data, text)
    if encoding is not None:
        name, spelling = encoding
        convert = f"iconv -f {spelling} -t UTF-8 {manifest.name} > utf8-{manifest.name}"
        raise ManifestError(f"{manifest}: the file is {name}; save it as UTF-8, for example with `{convert}`")
    return text


def _guess_encoding(data: bytes, text: str) -> tuple[str, str] | None:
    """Return the encoding of a file that is not UTF-8, for people and for iconv; None if some lines are damaged."""
    every = text.split("\n")
    lines = [line for line in every if not line.isascii()]
    if 2 * sum(not is_utf8(line) for line in lines) <= len(lines):
        return None
    if _is_gb18030(data):
        return "in GBK or GB18030", "GB18030"
    western = data.decode("cp1252", "replace")
    accented = [word for word in re.findall(r"[^\W\d_]+", western) if not word.isascii()]
    several = len(lines) > max(_FEW_DAMAGED, len(every) / 10)
    if several and 2 * sum(any(map(str.isascii, word)) for word in accented) > len(lines):
        return "not UTF-8, but probably Latin-1 (Windows-1252)", "WINDOWS-1252"
    return None


def _is_gb18030(data: bytes) -> bool:
    """Return whether most of the text is Chinese once decoded, and not single characters beside Latin letters.

    The latter are what accented letters of Latin-1 become, together with the letter after them.
    """
    try:
        decoded = data.decode("gb18030")
    except UnicodeDecodeError:
        return False
    runs = re.findall(r"[\u4e00-\u9fff]+", decoded)
    inside = re.findall(r"(?<=[A-Za-z])[\u4e00-\u9fff](?![\u4e00-\u9fff])|\b[\u4e00-\u9fff](?=[A-Za-z])", decoded)
    chinese = sum("\u4e00" <= c <= "\u9fff" or "\u3000" <= c <= "\u303f" or "\uff00" <= c <= "\uffef" for c in decoded)
    return 2 * chinese > sum(not c.isascii() for c in decoded) and 2 * len(inside) <= len(runs)


_TYPES: dict[type, str] = {
    dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number", type(None): "null"
}  # fmt: skip


def describe_type(value: object) -> str:
    """Return the name of a JSON value's type for messages."""
    return _TYPES.get(type(value), type(value).__name__)


def find_repeated(names: Iterable[str]) -> list[str]:
    """Return each name that occurs more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def is_utf8(text: str) -> bool:
    """Return False for a string that contains lone surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def legible(path: str) -> str:
    """Return `path` with a question mark for each byte that is not UTF-8, so that records can be written."""
    return path.encode(errors="replace").decode()
