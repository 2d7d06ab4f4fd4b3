"""ms-swift 4's rows for DPO: those of swift.py, with the answer to reject under `rejected_response`.

Its reader shows both answers the same images, and refuses a row whose two answers are equal (ms-swift 4.6.0,
template/template_inputs.py).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tasks.dataset.export.files import ImageNames, JsonLines, SubsetWriter
from tasks.dataset.export.pairs import get_rejected, split_pairs
from tasks.dataset.export.swift import make_swift_row
from tasks.dataset.export.trainer_names import EMPTY_THOUGHTS
from tasks.dataset.settings import ExportSpec
from tasks.models.qwen_vl import read_qwen_vl
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.jsonl`."""
    row = partial(_make_row, spec=spec, thinks=read_qwen_vl(spec.base, spec.revision).thinks)
    return SubsetWriter(folder, name, row, names, JsonLines, split_pairs, absolute_frames=True)


def _make_row(
    example: Example, images: Sequence[str], *, spec: ExportSpec, thinks: bool, videos: Sequence[Sequence[str]] = ()
) -> dict[str, object]:
    opening = EMPTY_THOUGHTS if thinks else ""
    row = make_swift_row(example, images, spec=spec, thinks=thinks, videos=videos)
    row["rejected_response"] = opening + get_rejected(example)
    return row
