"""The files of an export: rows written one by one, names of images, provenance, and how all take their place.

A set of any size takes no memory.
"""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import orjson
from PIL import ExifTags, Image, ImageOps

from tasks.dataset.export.conversation import NotHeld, NotHeldReason
from tasks.dataset.settings import Format, ImagePaths
from tasks.records import Example, Subset
from tasks.storage.files import describe_full_disk
from tasks.storage.json_lines import write_json_lines

Row = Callable[[Example, Sequence[str]], dict[str, object]]
"""Makes an example's row, given its images' names; raises NotHeld."""
_IMAGES = "images"


class Writer(Protocol):
    """Writes one format; an example is in it whole, or not at all."""

    def write(self, example: Example) -> None:
        """Add one example; raises NotHeld if the format can't hold it."""
        ...

    def close(self) -> None:
        """Finish the files."""
        ...


class RowFile(Protocol):
    """A file that takes rows one by one."""

    suffix: str

    def __init__(self, path: Path) -> None: ...

    def add(self, row: Any) -> None:
        """Add one row."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


def subset_name(name: str, subset: Subset) -> str:
    """What a subset's file is called, without its suffix."""
    return name if subset is Subset.TRAIN else f"{name}_{subset}"


def sync_and_close(file: IO[Any], end: bytes = b"") -> None:
    """Write `end`, sync and close the file, which is closed whatever the disk says."""
    with file:
        if end:
            file.write(end)
        file.flush()
        os.fsync(file.fileno())


class JsonLines:
    """A file of one JSON object a line."""

    suffix = ".jsonl"

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def add(self, row: object) -> None:
        """Write one row."""
        self._file.write(orjson.dumps(row) + b"\n")

    def close(self) -> None:
        """Sync and close the file."""
        sync_and_close(self._file)


class JsonArray:
    """A file of one JSON array, an element a line."""

    suffix = ".json"

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._before = b"[\n"

    def add(self, row: object) -> None:
        """Write one element."""
        self._file.write(self._before + orjson.dumps(row))
        self._before = b",\n"

    def close(self) -> None:
        """Write the array's end, sync and close the file."""
        end = b"[]\n" if self._before == b"[\n" else b"\n]\n"
        sync_and_close(self._file, end)


class Provenance:
    """provenance.jsonl of a format: which item of which manifest each row is, and where its label comes from.

    It is a file of its own since readers drop columns that they don't know (ms-swift) or are confused by them.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = JsonLines(folder / "provenance.jsonl")
        self._next: Counter[Subset] = Counter()

    def add(self, example: Example) -> None:
        """Note that the next row of the example's subset is this one."""
        row = self._next[example.subset]
        facts = {"subset": example.subset, "origin": example.origin, "label": example.label}
        self._lines.add({"id": example.sample_id, "source": example.source, "row": row, **facts})
        self._next[example.subset] += 1

    def close(self) -> None:
        """Finish the file."""
        self._lines.close()


# --- images ---------------------------------------------------------------------------------------------------


class ImageNames:
    """What an example's images are called in the formats' files; with `copy`, puts them into `scratch/images`."""

    def __init__(self, how: ImagePaths, folder: Path, scratch: Path) -> None:
        self._how, self._scratch = how, scratch
        # all formats lie at the same depth, so one relative name serves them all
        self._beside = str(folder / "any")
        self._copied: set[str] = set()

    def of(self, example: Example) -> list[str]:
        """Names in order; raises NotHeld when a file to be copied can't be read, OSError for a full disk."""
        if self._how == "absolute":
            return [image.path for image in example.images]
        if self._how == "relative":
            return [os.path.relpath(image.path, self._beside) for image in example.images]
        return [self._copy(example, image.path, image.sha256) for image in example.images]

    def _copy(self, example: Example, path: str, sha256: str) -> str:
        name = sha256 + os.path.splitext(path)[1].lower()
        if name not in self._copied:
            target = self._scratch / _IMAGES / name
            target.parent.mkdir(exist_ok=True)
            try:
                if not _turned(path, target):
                    _link_or_copy(os.path.realpath(path), target)
            except OSError as error:
                if describe_full_disk(error):  # nothing is wrong with the image: no export may go without it
                    raise
                raise NotHeld(example, NotHeldReason.IMAGE_UNREADABLE, f"{path}: {error.strerror or error}") from error
            self._copied.add(name)
        return f"../{_IMAGES}/{name}"


def _turned(source: str, target: Path) -> bool:
    """Write a photo that carries a rotation upright, as it is asked and as `datasets` shows it.

    LLaMA-Factory and qwen-vl-utils, which ms-swift uses, would show it lying on its side. False: it carries none, and
    nothing was written.
    """
    with Image.open(source) as image:
        # getexif decodes a whole PNG that has none
        if "exif" not in image.info or image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return False
        ImageOps.exif_transpose(image).save(target, format=image.format, quality=95)
        return True


def _link_or_copy(source: str, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)


# --- a format's files -----------------------------------------------------------------------------------------


class SubsetWriter:
    """Writes a format that has a row per example and a file per subset, with its provenance."""

    def __init__(self, folder: Path, name: str, row: Row, names: ImageNames, kind: type[RowFile]) -> None:
        self._folder, self._name, self._row, self._names, self._kind = folder, name, row, names, kind
        self._files = {Subset.TRAIN: self._open(Subset.TRAIN)}
        self._provenance = Provenance(folder)

    def _open(self, subset: Subset) -> RowFile:
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


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An example that is not in a format's files, and why."""

    sample_id: str
    format: Format
    reason: NotHeldReason
    detail: str


def write_left_out(file: Path, left_out: Sequence[LeftOut]) -> None:
    """Write a line for each: id, format, reason code, detail."""
    rows = [{"id": x.sample_id, "format": x.format, "reason": x.reason, "detail": x.detail} for x in left_out]
    write_json_lines(file, rows)


def put_in_place(scratch: Path, folder: Path) -> tuple[Path, ...]:
    """Move all that is in `scratch` into `folder`, in the place of what was there; returns the files, by name.

    A format's folder and `images/` go when `scratch` has none. Raises nothing of its own.
    """
    fresh = sorted(entry.name for entry in scratch.iterdir())
    former = scratch / ".former"
    former.mkdir()
    for name in {_IMAGES, *Format, *fresh}:
        if (folder / name).exists():
            (folder / name).rename(former / name)
        if name in fresh:
            (scratch / name).rename(folder / name)
    found = [file for name in fresh for file in [folder / name, *(folder / name).rglob("*")] if file.is_file()]
    return tuple(sorted(file for file in found if file.parent.name != _IMAGES))
