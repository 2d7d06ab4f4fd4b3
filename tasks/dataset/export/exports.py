"""Write the training set in the formats that trainers read; the file of each enforces its reader's own rules."""

import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tasks.dataset.export.conversation import NotHeld, NotHeldReason
from tasks.dataset.export.files import ImageNames, Writer, put_in_place
from tasks.dataset.export.ready import write_ready
from tasks.dataset.settings import ExportSpec, Format
from tasks.records import Example
from tasks.storage.files import report_full_disk
from tasks.storage.json_lines import write_json_lines


@dataclass(frozen=True)
class LeftOut:
    """An example that is not in a format's files, and why: a line of left_out.jsonl."""

    id: str
    format: Format
    reason: NotHeldReason
    detail: str


@dataclass(frozen=True)
class Exported:
    """What `write_exports` wrote."""

    files: tuple[Path, ...]
    """All but the copied images."""
    rows: dict[Format, int]
    """Rows of each format, both subsets together."""
    left_out: tuple[LeftOut, ...]


def write_exports(folder: Path, name: str, examples: Iterable[Example], spec: ExportSpec) -> Exported:
    """Write `examples` in every format of `spec`, each into `folder/<format>`, in one pass.

    Examples are taken one by one and none is held. Validation examples go to files of their own, `<name>_validation`,
    which the ready configurations name. Beside each format's data, but for `labels`, lies provenance.jsonl: a line a
    row, in the rows' order, `row` counted from 0 within its subset. What a format can't hold is in left_out.jsonl of
    `folder`. Nothing is seen of all this before the end; then `images/` and the formats' folders are replaced as
    wholes, and those of formats that are not written any more go. Raises StorageError for a full disk; what was there
    before then stays.
    """
    folder = folder.resolve()
    scratch = folder / ".exports"  # what a killed run left there goes too
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    left_out: list[LeftOut] = []
    rows: Counter[Format] = Counter()
    try:
        names = ImageNames(spec.image_paths, folder, scratch)
        with report_full_disk(folder), ExitStack() as stack:
            writers = {
                f: stack.enter_context(closing(open_writer(f, scratch / f, name, names, spec))) for f in spec.formats
            }
            for example in examples:
                for format, writer in writers.items():
                    try:
                        writer.write(example)
                        rows[format] += 1
                    except NotHeld as error:
                        left_out.append(LeftOut(example.sample_id, format, error.reason, error.detail))
        for format in spec.formats:
            write_ready(format, scratch / format, folder, name, spec)
        write_json_lines(scratch / "left_out.jsonl", left_out)
        files = put_in_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Exported(files, {format: rows[format] for format in spec.formats}, tuple(left_out))


def open_writer(format: Format, folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> Writer:
    """Return the writer of `format` into `folder`, which is made; the format's file is imported only now (trl: 2 s)."""
    folder.mkdir()
    return import_module(f"tasks.dataset.export.{format}").open_writer(folder, name, names, spec)
