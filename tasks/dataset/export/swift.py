"""The format of ms-swift 4: JSON Lines of messages and images.

Its reader changes rows silently, so its rules are enforced here (ms-swift 4.6.0, swift/template/base.py and
swift/dataset/preprocessor):

- It inserts missing `<image>` tags at the front, and only warns about surplus ones, even in the system turn.
- In a row without images, it takes `<img>…</img>` in any turn for an image, and removes the tag if there is no such
  file.
- It never writes the empty thoughts with which a thinking model's answers begin; they must be part of the row.
- It deletes unreadable rows unless `strict` is set, and drops unknown columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.dataset.export.conversation import make_messages_row
from tasks.dataset.export.files import ImageNames, JsonLines, SubsetWriter
from tasks.dataset.export.trainer_names import EMPTY_THOUGHTS
from tasks.dataset.settings import ExportSpec
from tasks.models.qwen_vl import read_qwen_vl
from tasks.records import Example


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.jsonl`.

    Relative paths need the environment variable ROOT_IMAGE_DIR, which the training configurations set.
    """
    thinks = read_qwen_vl(spec.base, spec.revision).thinks
    return SubsetWriter(folder, name, make_thinking_row if thinks else make_messages_row, names, JsonLines)


def make_thinking_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """Return a row for a thinking model, in which the last answer begins with empty thoughts.

    The model's chat template writes them there, but ms-swift does not.
    """
    row = make_messages_row(example, images)
    open_answer_with_thoughts(row)
    return row


def open_answer_with_thoughts(row: dict[str, Any]) -> None:
    """Write empty thoughts at the beginning of the row's last answer."""
    last = row["messages"][-1]
    last["content"] = EMPTY_THOUGHTS + last["content"]
