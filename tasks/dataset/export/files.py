"""JSON written row by row, so that a set of any size takes no memory; and each format's provenance."""

import os
from collections import Counter
from pathlib import Path

import orjson

from tasks.records import Example, Subset


def subset_name(name: str, subset: Subset) -> str:
    """What a subset's file is called, without its suffix."""
    return name if subset is Subset.TRAIN else f"{name}_{subset}"


class JsonLines:
    """A file of one JSON object a line."""

    suffix = ".jsonl"

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def add(self, row: object) -> None:
        """Write one row."""
        self._file.write(orjson.dumps(row) + b"\n")

    def close(self) -> None:
        """Sync and close the file, which is closed whatever the disk says."""
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())


class JsonArray:
    """A file of one JSON array, an element a line."""

    suffix = ".json"

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._before = b"[\n"

    def add(self, row: object) -> None:
        """Write one element."""
        self._file.write(self._before + orjson.dumps(row))
        self._before = b",\n"

    def close(self) -> None:
        """Write the array's end, sync and close the file, which is closed whatever the disk says."""
        with self._file as file:
            file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")
            file.flush()
            os.fsync(file.fileno())


class Provenance:
    """provenance.jsonl of a format: which item of which manifest each row is, and where its label comes from.

    It is a file of its own since readers drop columns that they don't know (ms-swift) or are confused by them.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = JsonLines(folder / "provenance.jsonl")
        self._next: Counter[Subset] = Counter()

    def add(self, example: Example) -> None:
        """Note that the next row of the example's subset is this one."""
        row = self._next[example.subset]
        facts = {"subset": example.subset, "origin": example.origin, "label": example.label}
        self._lines.add({"id": example.sample_id, "source": example.source, "row": row, **facts})
        self._next[example.subset] += 1

    def close(self) -> None:
        """Finish the file."""
        self._lines.close()
