"""Write an export's files row by row, name or copy its images, and move the finished files into place.

Memory use does not grow with the number of examples.
"""

import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import orjson
from PIL import Image

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample, show_frames_as_images
from tasks.dataset.settings import ExportSpec, Format
from tasks.items.images import FORMATS
from tasks.items.pixels import choose_suffix, encode_picture, render_if_different
from tasks.media import ImageRef
from tasks.models.image_cache import open_images
from tasks.models.qwen_vl import read_qwen_vl
from tasks.prompts.recordings import compute_frame_pixels
from tasks.records import Example, Subset
from tasks.storage.files import describe_full_disk

Row = Callable[..., dict[str, object]]
"""A function that makes a row from an example and the names of its image files. It may raise UnsupportedExample.

If the example has recordings, the names of the frames of each are passed as `videos`.
"""
Split = Callable[[Example], Iterable[Example]]
"""A function that returns an example for each of the rows that stand for the given one."""
_IMAGES = "images"


class Writer(Protocol):
    """Writes one format. An example is either written completely or not at all."""

    def write(self, example: Example) -> int:
        """Write one example, and return its number of rows; raises UnsupportedExample if this format can't contain it.

        Only formats with one row per pair of answers may write none.
        """
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
    """Finds the names by which exports refer to images, and writes images to `scratch/images`.

    An image that trainers would load differently from what the models saw is always written there as they saw it. With
    `copy`, all other images are linked or copied to the same folder.
    """

    def __init__(self, spec: ExportSpec, folder: Path, scratch: Path) -> None:
        self._spec, self._how, self._folder, self._scratch = spec, spec.image_paths, folder, scratch
        # all formats' folders have the same depth, so one relative name is right for all of them
        self._beside = str(folder / "any")
        self._written: dict[tuple[str, str, int | None], str] = {}
        """Maps an image's digest, path and largest area to its file in `images`; empty if the source file is used."""

    def name_images(self, example: Example) -> list[str]:
        """Return the names of the example's images, in order.

        Raises UnsupportedExample if an image can't be read, and OSError if the disk is full.
        """
        return [self._name(example, image) for image in example.images]

    def name_frames(self, example: Example, *, absolute: bool = False) -> list[list[str]]:
        """Return the names of the frames of each recording, in order; raises what `name_images` raises.

        With `absolute`, the names are absolute paths, however images are named. Frames that models see smaller, because
        there are many of them, are written to `images` as models see them: trainers have one bound for all frames.
        """
        bounds = {"min_pixels": self._spec.min_pixels, "max_pixels": self._spec.max_pixels}
        most = compute_frame_pixels(example.videos, **bounds)
        return [[self._name(example, frame, absolute, most) for frame in video.frames] for video in example.videos]

    def _name(self, example: Example, image: ImageRef, absolute: bool = False, most: int | None = None) -> str:
        most = None if most is None or image.width * image.height <= most else most
        key = image.sha256, image.path, most
        if key not in self._written:
            self._written[key] = self._write(example, image, most)
        name = self._written[key]
        if absolute or self._how == "absolute":
            return str(self._folder / _IMAGES / name) if name else image.path
        return f"../{_IMAGES}/{name}" if name else os.path.relpath(image.path, self._beside)

    def _write(self, example: Example, image: ImageRef, most: int | None) -> str:
        """Write the image's file if it needs one, and return the file's name."""
        rendered = self._shrink(example, image, most) if most else encode_if_different(example, image.path)
        if rendered is None and self._how != "copy":
            return ""
        suffix = os.path.splitext(image.path)[1].lower() if rendered is None else rendered[1]
        target = self._scratch / _IMAGES / (image.sha256 + (f"-{most}" if most else "") + suffix)
        target.parent.mkdir(exist_ok=True)
        with report_unreadable(example, image.path):
            if rendered is not None:
                target.write_bytes(rendered[0])
            elif not target.exists():
                _link_or_copy(os.path.realpath(image.path), target)
        return target.name

    def _shrink(self, example: Example, frame: ImageRef, most: int) -> tuple[bytes, str]:
        bounds = {"min_pixels": self._spec.min_pixels, "max_pixels": most}
        patch_size = read_qwen_vl(self._spec.base, self._spec.revision).patch_size
        with report_unreadable(example, frame.path):
            (picture,) = open_images([frame], **bounds, patch_size=patch_size) or []
            return encode_picture(picture, ".png"), ".png"


def encode_if_different(example: Example, path: str) -> tuple[bytes, str] | None:
    """Return an image as models saw it, as the bytes and suffix of a file; None if trainers show the file like that.

    Raises UnsupportedExample if the file can't be read.
    """
    with report_unreadable(example, path), Image.open(path, formats=FORMATS) as image:
        suffix = choose_suffix(image)
        rendered = render_if_different(image)
        return None if rendered is None else (encode_picture(rendered, suffix), suffix)


@contextmanager
def report_unreadable(example: Example, path: str) -> Generator[None]:
    """Turn errors on reading an image into UnsupportedExample, except for a full disk: the image is not at fault."""
    try:
        yield
    except Exception as error:  # decoders raise errors of any kind on broken bytes
        if isinstance(error, OSError) and describe_full_disk(error):
            raise
        fault = getattr(error, "strerror", None) or error
        raise UnsupportedExample(example, LeftOutReason.IMAGE_UNREADABLE, f"{path}: {fault}") from error


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
    readers drop unknown columns (ms-swift), and others are confused by them. `row` gets the frames of recordings with
    absolute paths or as images, if their reader needs that.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        row: Row,
        names: ImageNames,
        kind: type[RowFile],
        split: Split = lambda example: (example,),
        *,
        frames_as_images: bool = False,
        absolute_frames: bool = False,
    ) -> None:
        self._folder, self._name, self._row, self._names, self._kind = folder, name, row, names, kind
        self._split, self._frames_as_images, self._absolute_frames = split, frames_as_images, absolute_frames
        self._files = {Subset.TRAIN: self._open(Subset.TRAIN)}
        self._rows: Counter[Subset] = Counter()
        self._provenance = JsonLines(folder / "provenance.jsonl")

    def _open(self, subset: Subset) -> RowFile:
        return self._kind(self._folder / f"{subset_name(self._name, subset)}{self._kind.suffix}")

    def write(self, example: Example) -> int:
        """Write the example's rows to its subset's file; raises UnsupportedExample if the format can't contain it."""
        subset = example.subset
        shown = show_frames_as_images if self._frames_as_images else lambda part: part
        parts = [shown(part) for part in self._split(example)]
        names = self._names.name_images(parts[0]) if parts else []
        frames = self._names.name_frames(parts[0], absolute=self._absolute_frames) if parts else []
        rows = [self._row(part, names, **({"videos": frames} if frames else {})) for part in parts]
        if rows and subset not in self._files:
            self._files[subset] = self._open(subset)
        for part, row in zip(parts, rows, strict=True):
            self._files[subset].add(row)
            facts = {"subset": subset, "origin": example.origin, "label": part.label}
            self._provenance.add(
                {"id": example.sample_id, "source": example.source, "row": self._rows[subset], **facts}
            )
            self._rows[subset] += 1
        return len(rows)

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
