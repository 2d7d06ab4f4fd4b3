"""What writes a format row by row: JSON here, Parquet and labels in rooms of their own."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from tasks.dataset.export.exports import ExportSpec, Format
from tasks.dataset.export.files import JsonArray, JsonLines, Provenance, subset_name
from tasks.dataset.export.labels import LabelWriter
from tasks.dataset.export.llamafactory import fitting_row
from tasks.dataset.export.placing import ImageNames
from tasks.dataset.export.qwen import qwen_row, vision_start_row
from tasks.dataset.export.swift import swift2_row, swift_row
from tasks.dataset.export.trl import TrlWriter
from tasks.records import Example, Subset

Row = Callable[[Example, Sequence[str]], dict[str, object]]
"""Makes an example's row, given its images' names; raises NotHeld."""

_JSON: dict[Format, tuple[Row, type[JsonArray] | type[JsonLines]]] = {
    Format.SWIFT: (swift_row, JsonLines),
    Format.SWIFT2: (swift2_row, JsonLines),
    Format.QWEN: (qwen_row, JsonArray),
    Format.VISION_START: (vision_start_row, JsonArray),
}


class Writer(Protocol):
    """Writes one format; an example is in it whole, or not at all."""

    def write(self, example: Example) -> None:
        """Add one example; raises NotHeld if the format can't hold it."""
        ...

    def close(self) -> None:
        """Finish the files."""
        ...


def open_writer(format: Format, folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> Writer:
    """The writer of `format` into `folder`, which is made."""
    folder.mkdir()
    if format is Format.LABELS:
        return LabelWriter(folder)
    if format is Format.TRL:
        return TrlWriter(folder, name)
    if format is Format.LLAMAFACTORY:
        return JsonWriter(folder, name, partial(fitting_row, spec=spec), names, JsonArray)
    row, kind = _JSON[format]
    return JsonWriter(folder, name, row, names, kind)


class JsonWriter:
    """A format whose rows are JSON objects; an array or a file of lines a subset."""

    def __init__(
        self, folder: Path, name: str, row: Row, names: ImageNames, kind: type[JsonArray] | type[JsonLines]
    ) -> None:
        self._folder, self._name, self._row, self._names, self._kind = folder, name, row, names, kind
        self._files = {Subset.TRAIN: self._open(Subset.TRAIN)}
        self._provenance = Provenance(folder)

    def _open(self, subset: Subset) -> JsonArray | JsonLines:
        return self._kind(self._folder / f"{subset_name(self._name, subset)}{self._kind.suffix}")

    def write(self, example: Example) -> None:
        """Add the example's row to its subset's file; raises NotHeld."""
        row = self._row(example, self._names.of(example))
        if example.subset not in self._files:
            self._files[example.subset] = self._open(example.subset)
        self._files[example.subset].add(row)
        self._provenance.add(example)

    def close(self) -> None:
        """Finish all files."""
        for file in self._files.values():
            file.close()
        self._provenance.close()
