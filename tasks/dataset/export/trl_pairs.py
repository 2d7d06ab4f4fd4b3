"""Parquet for trl's DPOTrainer, with the columns prompt, chosen, rejected and images; see trl.py for the rest.

DPOTrainer shows both answers the same images, and reads them when a row is used (trl 1.16, dpo_trainer.py).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tasks.dataset.export.conversation import make_conversation
from tasks.dataset.export.files import ImageNames, SubsetWriter
from tasks.dataset.export.pairs import get_rejected, split_pairs
from tasks.dataset.export.trl import ParquetPairs, SourceNames, read_image, split_turns
from tasks.dataset.settings import ExportSpec
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.parquet`. The file contains the images, so none are copied."""
    row = partial(_make_row, spec=spec)
    names = SourceNames(spec, folder, folder)
    return SubsetWriter(folder, name, row, names, ParquetPairs, split_pairs, frames_as_images=True)


def _make_row(example: Example, images: Sequence[str], *, spec: ExportSpec) -> dict[str, object]:
    turns = make_conversation(example, spec).messages()
    *before, chosen, rejected = split_turns([*turns, {"role": "assistant", "content": get_rejected(example)}])
    images_read = [read_image(example, path) for path in images]
    return {"prompt": before, "chosen": [chosen], "rejected": [rejected], "images": images_read}
