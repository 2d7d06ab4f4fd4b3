"""The format of ms-swift 4: JSON Lines of messages and images.

Its reader changes rows silently, so its rules are enforced here (ms-swift 4.6.0, swift/template/base.py and
swift/dataset/preprocessor):

- It inserts missing `<image>` tags at the front, and only warns about surplus ones, even in the system turn.
- In a row without images, it takes `<img>…</img>` in any turn for an image, and removes the tag if there is no such
  file.
- It deletes unreadable rows unless `strict` is set, and drops unknown columns.
"""

from pathlib import Path

from tasks.dataset.export.conversation import make_messages_row
from tasks.dataset.export.files import ImageNames, JsonLines, SubsetWriter
from tasks.dataset.settings import ExportSpec


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.jsonl`.

    Relative paths need the environment variable ROOT_IMAGE_DIR, which the training configurations set.
    """
    return SubsetWriter(folder, name, make_messages_row, names, JsonLines)
