# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (pyarrow and datasets publish few types)
"""Parquet for Hugging Face `datasets` and trl: prompt, completion, and the images themselves.

`load_dataset("parquet", data_files=…)` finds the columns' types in the file: images are decoded when a row is read.
Contents are lists of elements, since with a string trl moves all images before the text (trl 1.16, data_utils.py).
Train with `max_length=None`, so that no image's tokens are cut. Of several exchanges trl trains on the last answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from tasks.dataset.export.conversation import NotHeld, NotHeldReason, to_conversation
from tasks.dataset.export.files import ImageNames, RowFile, SubsetWriter
from tasks.dataset.settings import ExportSpec
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example

_TURNS = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
_FEATURES = Features({"prompt": _TURNS, "completion": _TURNS, "images": List(Image())})

_GROUP_ROWS = 256
_GROUP_BYTES = 32 << 20


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer of `<name>.parquet`, which holds the images themselves: none is copied beside it."""
    return SubsetWriter(folder, name, trl_row, ImageNames("absolute", folder, folder), ParquetGroups)


def trl_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """Return a row with the image files as they are; raises NotHeld, also for a file that can't be read."""
    turns = to_conversation(example).messages()
    *before, last = [{"role": turn["role"], "content": _elements(turn["content"])} for turn in turns]
    shown = [{"bytes": _bytes(example, path), "path": Path(path).name} for path in images]
    return {"prompt": before, "completion": [last], "images": shown}


class ParquetGroups(RowFile):
    """A Parquet file written a row group at a time, so that few images are held."""

    suffix = ".parquet"

    def __init__(self, path: Path) -> None:
        self._parquet = pq.ParquetWriter(path, _FEATURES.arrow_schema)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add one row."""
        self._rows.append(row)
        self._bytes += sum(len(image["bytes"]) for image in row["images"])
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=_FEATURES.arrow_schema))
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        """Write the last group and finish the file."""
        if self._rows:
            self._flush()
        self._parquet.close()


def _elements(content: str) -> list[dict[str, str | None]]:
    """The content list: texts and images in their order, empty texts left out (as in `user_turn.user_content`)."""
    first, *rest = content.split(IMAGE_TOKEN)
    elements: list[dict[str, str | None]] = [{"type": "text", "text": first}]
    for text in rest:
        elements.append({"type": "image", "text": None})
        elements.append({"type": "text", "text": text})
    return [element for element in elements if element["text"] != ""]


def _bytes(example: Example, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NotHeld(example, NotHeldReason.IMAGE_UNREADABLE, f"{path}: {error.strerror}") from error
