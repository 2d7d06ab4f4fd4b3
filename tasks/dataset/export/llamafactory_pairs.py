"""LLaMA-Factory's rows for DPO: those of llamafactory.py, with the two answers under `chosen` and `rejected`.

Its reader needs `ranking` in dataset_info.json, an odd number of turns before the answers, and a dictionary for each of
them; otherwise it skips the row (LLaMA-Factory 0.9.5, data/converter.py). Both answers get the same images.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.dataset.export.files import ImageNames, JsonArray, SubsetWriter
from tasks.dataset.export.llamafactory import make_fitting_row
from tasks.dataset.export.pairs import get_rejected, split_pairs
from tasks.dataset.settings import ExportSpec
from tasks.models.qwen_vl import QwenVL, read_qwen_vl
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.json`. It leaves out pairs that are clearly too long."""
    row = partial(_make_row, spec=spec, model=read_qwen_vl(spec.base, spec.revision))
    return SubsetWriter(folder, name, row, names, JsonArray, split_pairs)


def _make_row(
    example: Example, images: Sequence[str], *, spec: ExportSpec, model: QwenVL, videos: Sequence[Sequence[str]] = ()
) -> dict[str, object]:
    row: dict[str, Any] = make_fitting_row(example, images, spec=spec, model=model, videos=videos)
    *question, chosen = row["messages"]
    rejected = {"role": "assistant", "content": get_rejected(example)}
    return {**row, "messages": question, "chosen": chosen, "rejected": rejected}
