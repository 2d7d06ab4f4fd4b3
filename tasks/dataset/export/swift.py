"""ms-swift's format, version 4: JSON Lines of messages and images.

Its reader mends in silence, so the rules are enforced here (ms-swift 4.6.0, swift/template/base.py and
swift/dataset/preprocessor): missing `<image>` tags are put in front and too many only warned about, in the system turn
as well; an `<img>…</img>` in any turn of a row without images becomes an image, or vanishes where there is no such
file; rows that can't be read are deleted unless `strict`; columns that it does not know are dropped.
"""

from pathlib import Path

from tasks.dataset.export.conversation import make_messages_row
from tasks.dataset.export.files import ImageNames, JsonLines, SubsetWriter
from tasks.dataset.settings import ExportSpec


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer of `<name>.jsonl`.

    Relative images are found only with the environment variable ROOT_IMAGE_DIR, which the ready configurations name.
    """
    return SubsetWriter(folder, name, make_messages_row, names, JsonLines)
