"""Write plain labels for spreadsheets and other tools, and predictions for leaderboards."""

import csv
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample
from tasks.dataset.export.files import ImageNames, JsonLines, sync_and_close
from tasks.dataset.settings import ExportSpec
from tasks.records import Example
from tasks.storage.files import write_bytes


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> "LabelWriter":
    """Return the writer for labels.csv and labels.jsonl."""
    return LabelWriter(folder)


class LabelWriter:
    """Writes labels.csv and labels.jsonl: id, label, origin, subset and manifest of every example that has a label."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "labels.csv").open("w", encoding="utf-8-sig", newline="")  # Excel needs the mark
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(["id", "label", "origin", "subset", "source"])
        self._lines = JsonLines(folder / "labels.jsonl")

    def write(self, example: Example) -> int:
        """Write one example, and return 1; raises UnsupportedExample if it has no label."""
        if not example.label:
            raise UnsupportedExample(example, LeftOutReason.NO_LABEL, f"no label ({example.origin})")
        row = {
            "id": example.sample_id, "label": example.label, "origin": example.origin, "subset": example.subset,
            "source": example.source,
        }  # fmt: skip
        self._rows.writerow(row.values())
        self._lines.add(row)
        return 1

    def close(self) -> None:
        """Finish and close both files."""
        sync_and_close(self._file)
        self._lines.close()


def write_predictions(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write (id, predicted label) pairs to `path` atomically, as UTF-8 CSV with the columns `id,predict`."""
    table = pd.DataFrame(list(pairs), columns=["id", "predict"])
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())
