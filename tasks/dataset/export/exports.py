"""Write the training set in several formats in one pass. Each format's module enforces its reader's rules."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export import labels, llamafactory, qwen, swift, swift2, trl, vision_start
from tasks.dataset.export.conversation import UnsupportedExample
from tasks.dataset.export.files import ImageNames, Writer, put_in_place
from tasks.dataset.export.ready import write_ready
from tasks.dataset.export.recordings import Recordings
from tasks.dataset.export.trainer_names import check_base
from tasks.dataset.settings import ExportSpec, Format
from tasks.records import Example
from tasks.storage.files import report_full_disk
from tasks.storage.json_lines import write_json_lines

log = logging.getLogger("labelstill")

_WRITERS: dict[Format, Callable[[Path, str, ImageNames, ExportSpec], Writer]] = {
    Format.LLAMAFACTORY: llamafactory.open_writer,
    Format.LLAMAFACTORY_PAIRS: llamafactory.open_pairs_writer,
    Format.SWIFT: swift.open_writer,
    Format.SWIFT_PAIRS: swift.open_pairs_writer,
    Format.SWIFT_SOFT: swift.open_soft_writer,
    Format.SWIFT2: swift2.open_writer,
    Format.QWEN: qwen.open_writer,
    Format.VISION_START: vision_start.open_writer,
    Format.TRL: trl.open_writer,
    Format.TRL_PAIRS: trl.open_pairs_writer,
    Format.LABELS: labels.open_writer,
}
_READ_FRAMES = (
    Format.LLAMAFACTORY, Format.LLAMAFACTORY_PAIRS, Format.SWIFT, Format.SWIFT_PAIRS, Format.SWIFT_SOFT,
)  # fmt: skip
"""Formats whose readers take the frames of a recording as a recording; the others get them as images."""


@dataclass(frozen=True)
class LeftOut:
    """A line of left_out.jsonl: an example that can't be written in a format, and the reason."""

    id: str
    format: Format
    reason: LeftOutReason
    detail: str
    source: str
    """Absolute path of the item's manifest file."""


@dataclass(frozen=True)
class Exported:
    """What `write_exports` wrote."""

    files: tuple[Path, ...]
    """All written files except copied images."""
    rows: dict[Format, int]
    """Maps each format to its number of rows, training and validation together."""
    left_out: tuple[LeftOut, ...]


def write_exports(folder: Path, name: str, examples: Iterable[Example], spec: ExportSpec) -> Exported:
    """Write `examples` in every format of `spec` to `folder/<format>`, in one pass and with little memory.

    Validation examples go to separate files, `<name>_validation`, which the training configurations refer to. In every
    format except `labels`, provenance.jsonl has one line per row, in the same order; its field `row` counts from 0 in
    each subset. Examples that can't be written in a format are listed in `folder`/left_out.jsonl.

    All files are first written to a temporary folder. At the end, `images/` and the formats' folders are replaced as a
    whole, and folders of formats that are no longer written are removed. Raises StorageError if the disk is full, and
    what `check_base` raises; then the previous files remain unchanged.
    """
    check_base(spec)
    folder = folder.resolve()
    scratch = folder / ".exports"  # also removes what a killed run has left
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    left_out: list[LeftOut] = []
    rows: Counter[Format] = Counter()
    recordings = {format: Recordings() for format in spec.formats}
    try:
        names = ImageNames(spec, folder, scratch)
        with report_full_disk(folder), ExitStack() as stack:
            writers = {
                f: stack.enter_context(closing(open_writer(f, scratch / f, name, names, spec))) for f in spec.formats
            }
            for example in examples:
                for format, writer in writers.items():
                    try:
                        written = writer.write(example)
                        rows[format] += written
                        if written:
                            recordings[format].add(example.videos, example.subset)
                    except UnsupportedExample as error:
                        left_out.append(LeftOut(example.sample_id, format, error.reason, error.detail, example.source))
        for format in spec.formats:
            write_ready(format, scratch / format, folder, name, spec, recordings[format])
        write_json_lines(scratch / "left_out.jsonl", left_out)
        files = put_in_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _report_recordings(recordings)
    return Exported(files, {format: rows[format] for format in spec.formats}, tuple(left_out))


def open_writer(format: Format, folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> Writer:
    """Create `folder` and return the writer for `format`."""
    folder.mkdir()
    return _WRITERS[format](folder, name, names, spec)


def _report_recordings(recordings: Mapping[Format, Recordings]) -> None:
    """Log what the readers of the formats do not learn about recordings."""
    as_images = [f for f, of in recordings.items() if of.rates and f not in (*_READ_FRAMES, Format.LABELS)]
    if as_images:
        log.warning(
            "%s: frames of recordings become images, because the readers accept no frames", ", ".join(as_images)
        )
    for format in _READ_FRAMES:
        if format in recordings and (unusual := recordings[format].count_unusual()):
            log.warning(
                "%s: %d of %d recordings do not have %g frames per second; the trainer takes this rate for all, so "
                "Qwen2.5-VL and Qwen3-VL get wrong timestamps",
                format, unusual, recordings[format].rates.total(), recordings[format].usual_rate,
            )  # fmt: skip
