"""Where exports lie: how images are named in them, and how finished folders take the place of the former ones."""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from tasks.dataset.export.exports import Format, ImagePaths, LeftOut, NotHeld, Reason
from tasks.records import Example
from tasks.storage.files import full_disk
from tasks.storage.json_lines import write_json_lines

_IMAGES = "images"


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
                if full_disk(error):  # nothing is wrong with the image: no export may go without it
                    raise
                raise NotHeld(example, Reason.IMAGE_UNREADABLE, f"{path}: {error.strerror or error}") from error
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
