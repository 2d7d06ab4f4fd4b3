"""Write an export's files row by row, name or copy its images, and move the finished files into place.

Memory use does not grow with the number of examples.
"""

import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import orjson
from PIL import ExifTags, Image, ImageOps

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample
from tasks.dataset.settings import Format, ImagePaths
from tasks.records import Example, Subset
from tasks.storage.files import describe_full_disk

Row = Callable[[Example, Sequence[str]], dict[str, object]]
"""A function that makes a row from an example and the names of its image files. It may raise UnsupportedExample."""
_IMAGES = "images"


class Writer(Protocol):
    """Writes one format. An example is either written completely or not at all."""

    def write(self, example: Example) -> None:
        """Write one example; raises UnsupportedExample if this format can't contain it."""
        ...

    def close(self) -> None:
        """Finish the files."""
        ...


def subset_name(name: str, subset: Subset) -> str:
    """Return the name of a subset's file without the extension."""
    return name if subset is Subset.TRAIN else f"{name}_{subset}"


def sync_and_close(file: IO[Any]) -> None:
    """Sync the file to disk and close it; it is closed even if syncing fails."""
    with file:
        file.flush()
        os.fsync(file.fileno())


class RowFile(ABC):
    """A file that is written row by row."""

    suffix: str

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    @abstractmethod
    def add(self, row: Any) -> None:
        """Write one row."""

    def close(self) -> None:
        """Sync the file to disk and close it."""
        sync_and_close(self._file)


class JsonLines(RowFile):
    """A file with one JSON object per line."""

    suffix = ".jsonl"

    def add(self, row: object) -> None:
        """Write one row."""
        self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


class JsonArray(RowFile):
    """A file with one JSON array, one element per line."""

    suffix = ".json"
    _before = b"[\n"

    def add(self, row: object) -> None:
        """Write one element."""
        self._file.write(self._before + orjson.dumps(row))
        self._before = b",\n"

    def close(self) -> None:
        """Write the end of the array, then sync the file to disk and close it."""
        self._file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")
        super().close()


# --- images ---------------------------------------------------------------------------------------------------


class ImageNames:
    """Finds the names by which exports refer to images; with `copy`, also copies the images to `scratch/images`."""

    def __init__(self, how: ImagePaths, folder: Path, scratch: Path) -> None:
        self._how, self._scratch = how, scratch
        # all formats' folders have the same depth, so one relative name is right for all of them
        self._beside = str(folder / "any")
        self._copied: set[str] = set()

    def name_images(self, example: Example) -> list[str]:
        """Return the names of the example's images, in order.

        Raises UnsupportedExample if an image can't be read, and OSError if the disk is full.
        """
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
                if not _write_upright(path, target):
                    _link_or_copy(os.path.realpath(path), target)
            except OSError as error:
                if describe_full_disk(error):  # the image is fine, so no export may leave it out
                    raise
                raise UnsupportedExample(
                    example, LeftOutReason.IMAGE_UNREADABLE, f"{path}: {error.strerror or error}"
                ) from error
            self._copied.add(name)
        return f"../{_IMAGES}/{name}"


def _write_upright(source: str, target: Path) -> bool:
    """Write a photo with an EXIF rotation upright to `target`; return False, writing nothing, if it has none.

    Models are asked about the upright photo, but LLaMA-Factory and qwen-vl-utils (which ms-swift uses) ignore the
    rotation and would train on it sideways.
    """
    with Image.open(source) as image:
        # getexif would decode the whole file of a PNG without EXIF
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
    """Writes a format that has one row per example and one file per subset, and writes its provenance.jsonl.

    provenance.jsonl gives each row's id, its manifest and where its label came from. It is a separate file because some
    readers drop unknown columns (ms-swift), and others are confused by them.
    """

    def __init__(self, folder: Path, name: str, row: Row, names: ImageNames, kind: type[RowFile]) -> None:
        self._folder, self._name, self._row, self._names, self._kind = folder, name, row, names, kind
        self._files = {Subset.TRAIN: self._open(Subset.TRAIN)}
        self._rows: Counter[Subset] = Counter()
        self._provenance = JsonLines(folder / "provenance.jsonl")

    def _open(self, subset: Subset) -> RowFile:
        return self._kind(self._folder / f"{subset_name(self._name, subset)}{self._kind.suffix}")

    def write(self, example: Example) -> None:
        """Write the example's row to its subset's file; raises UnsupportedExample if the format can't contain it."""
        subset = example.subset
        row = self._row(example, self._names.name_images(example))
        if subset not in self._files:
            self._files[subset] = self._open(subset)
        self._files[subset].add(row)
        facts = {"subset": subset, "origin": example.origin, "label": example.label}
        self._provenance.add({"id": example.sample_id, "source": example.source, "row": self._rows[subset], **facts})
        self._rows[subset] += 1

    def close(self) -> None:
        """Finish and close all files."""
        for file in (*self._files.values(), self._provenance):
            file.close()


def put_in_place(scratch: Path, folder: Path) -> tuple[Path, ...]:
    """Move everything from `scratch` to `folder`, replacing what was there, and return the sorted paths of the files.

    Format folders and `images/` are removed from `folder` if `scratch` does not contain them. The returned files do not
    include images.
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
