"""Parquet for Hugging Face `datasets` and trl: the columns prompt, completion, images and label_probabilities.

`load_dataset("parquet", data_files=…)` reads the column types from the file and decodes images when a row is read. The
content of a turn is a list of texts and images. If it were a string, trl would move all images in front of it (trl
1.16, data_utils.py). The frames of a recording are images too: trl reads no recordings, and trains on a row's text
alone if it has some. Train with `max_length=None`, so that no image tokens are cut. In a conversation with several
exchanges, trl trains on the last answer only.

`label_probabilities` has the teacher's probability of each label, for pseudo-labelled rows. trl's SFTTrainer ignores
it; it is there for a loss of your own. For DPOTrainer the columns are prompt, chosen, rejected and images; it shows
both answers the same images, and reads them when a row is used (dpo_trainer.py).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.dataset.export.conversation import get_rejected, make_conversation, split_pairs
from tasks.dataset.export.files import ImageNames, RowFile, SubsetWriter, encode_if_different, report_unreadable
from tasks.dataset.settings import ExportSpec
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example

_TEXT = {"dtype": "string", "_type": "Value"}
_CONTENT = {"feature": {"type": _TEXT, "text": _TEXT}, "_type": "List"}
_TURNS = {"feature": {"role": _TEXT, "content": _CONTENT}, "_type": "List"}
_IMAGES = {"feature": {"_type": "Image"}, "_type": "List"}
_SHARE = {"label": _TEXT, "probability": {"dtype": "float64", "_type": "Value"}}
_FEATURES = {
    "prompt": _TURNS,
    "completion": _TURNS,
    "images": _IMAGES,
    "label_probabilities": {"feature": _SHARE, "_type": "List"},
}
"""The columns in the words of `datasets`, which the light environment lacks."""
_PAIR_FEATURES = {"prompt": _TURNS, "chosen": _TURNS, "rejected": _TURNS, "images": _IMAGES}

_ELEMENT = pa.struct({"type": pa.string(), "text": pa.string()})
_TURN = pa.struct({"role": pa.string(), "content": pa.list_(_ELEMENT)})
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_COLUMNS = {
    **dict.fromkeys(("prompt", "completion", "chosen", "rejected"), pa.list_(_TURN)),
    "images": pa.list_(_IMAGE),
    "label_probabilities": pa.list_(pa.struct({"label": pa.string(), "probability": pa.float64()})),
}


def _make_schema(features: Mapping[str, object]) -> pa.Schema:
    """Return the schema of a file with these columns; its metadata tells `datasets` which column has images."""
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema({name: _COLUMNS[name] for name in features}, metadata)


SCHEMA = _make_schema(_FEATURES)

_GROUP_ROWS = 256
_GROUP_BYTES = 32 << 20


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.parquet`. The file contains the images, so none are copied."""
    row = partial(make_trl_row, spec=spec)
    return SubsetWriter(folder, name, row, SourceNames(spec, folder, folder), ParquetGroups, frames_as_images=True)


def open_pairs_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the same for pairs of answers."""
    row, names = partial(_make_pair_row, spec=spec), SourceNames(spec, folder, folder)
    return SubsetWriter(folder, name, row, names, ParquetPairs, split_pairs, frames_as_images=True)


class SourceNames(ImageNames):
    def name_images(self, example: Example) -> list[str]:
        """Return the paths of the source files; `make_trl_row` reads them and shows them as models saw them."""
        return [image.path for image in example.images]


def make_trl_row(example: Example, images: Sequence[str], *, spec: ExportSpec) -> dict[str, object]:
    """Return a row that contains the bytes of the image files.

    Raises UnsupportedExample if an image can't be read, or if the conversation is invalid.
    """
    *before, last = _split_turns(make_conversation(example, spec).messages())
    shares = [{"label": label, "probability": p} for label, p in example.probabilities.items()]
    images_read = [_read_image(example, path) for path in images]
    return {"prompt": before, "completion": [last], "images": images_read, "label_probabilities": shares}


def _make_pair_row(example: Example, images: Sequence[str], *, spec: ExportSpec) -> dict[str, object]:
    turns = make_conversation(example, spec).messages()
    *before, chosen, rejected = _split_turns([*turns, {"role": "assistant", "content": get_rejected(example)}])
    images_read = [_read_image(example, path) for path in images]
    return {"prompt": before, "chosen": [chosen], "rejected": [rejected], "images": images_read}


class ParquetGroups(RowFile):
    """A Parquet file that is written in row groups, so that only a few images are in memory."""

    suffix = ".parquet"
    schema = SCHEMA

    def __init__(self, path: Path) -> None:
        self._parquet = pq.ParquetWriter(path, self.schema)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add one row."""
        self._rows.append(row)
        self._bytes += sum(len(image["bytes"]) for image in row["images"])
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
        self._rows = []
        self._bytes = 0

    def close(self) -> None:
        """Write the last group and finish the file."""
        if self._rows:
            self._flush()
        self._parquet.close()


class ParquetPairs(ParquetGroups):
    """The same for pairs of answers, with the columns prompt, chosen, rejected and images."""

    schema = _make_schema(_PAIR_FEATURES)


def _split_turns(turns: Iterable[Mapping[str, str]]) -> list[dict[str, object]]:
    """Return the turns, the content of each as a list of texts and images."""
    return [{"role": turn["role"], "content": _split_content(turn["content"])} for turn in turns]


def _split_content(content: str) -> list[dict[str, str | None]]:
    """Return the texts and images of a content in their order, without empty texts (as `make_user_content` does)."""
    first, *rest = content.split(IMAGE_TOKEN)
    elements: list[dict[str, str | None]] = [{"type": "text", "text": first}]
    for text in rest:
        elements.append({"type": "image", "text": None})
        elements.append({"type": "text", "text": text})
    return [element for element in elements if element["text"] != ""]


def _read_image(example: Example, path: str) -> dict[str, object]:
    """Return the bytes and name of an image as models saw it; raises UnsupportedExample if it can't be read."""
    rendered = encode_if_different(example, path)
    if rendered is not None:
        data, suffix = rendered
        return {"bytes": data, "path": Path(path).stem + suffix}
    with report_unreadable(example, path):
        return {"bytes": Path(path).read_bytes(), "path": Path(path).name}
