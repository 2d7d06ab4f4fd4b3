"""Plain labels, and predictions: for spreadsheets, other tools, and leaderboards."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from tasks.dataset.export.exports import NotHeld, Reason
from tasks.dataset.export.files import JsonLines
from tasks.records import Example
from tasks.storage.files import write_bytes


class LabelWriter:
    """labels.csv and labels.jsonl: id, label, origin and subset of every example that has a label."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "labels.csv").open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(["id", "label", "origin", "subset"])
        self._lines = JsonLines(folder / "labels.jsonl")

    def write(self, example: Example) -> None:
        """Add one example; raises NotHeld for one without a label."""
        if not example.label:
            raise NotHeld(example, Reason.NO_LABEL, f"no label ({example.origin})")
        row = {"id": example.sample_id, "label": example.label, "origin": example.origin, "subset": example.subset}
        self._rows.writerow(row.values())
        self._lines.add(row)

    def close(self) -> None:
        """Finish both files."""
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._lines.close()


def write_predictions(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write (id, predicted label) pairs as a CSV file of the columns `id,predict`, UTF-8, atomically."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "predict"])
    rows.writerows(pairs)
    write_bytes(path, text.getvalue().encode())
