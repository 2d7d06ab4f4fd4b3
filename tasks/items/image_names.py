"""Find the file that an image or video name refers to, and suggest a likely one if it does not exist.

A name is a path inside the image folder. Other spellings are never guessed, only suggested: `IMG\\1.PNG` may be another
picture than `img/1.png`.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import unquote

from tasks.items.cutting import parse_literal_list
from tasks.items.refusals import Reason, Unusable

_MOST_LISTED = 200_000
"""Maximum number of a folder's files that are compared with a wrong name."""
_MOST_SHOWN = 80
"""Maximum number of a name's characters in a message."""
_URL = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.-]+:)?//[\w-]+\.\w|[a-zA-Z][a-zA-Z0-9+.-]+://")
_NUMPY_NAMES = re.compile(r"""\[\s*(?:'[^']*'|"[^"]*")(?:\s+(?:'[^']*'|"[^"]*"))+\s*\]""")
_NUMPY_NAME = re.compile(r"""'([^']*)'|"([^"]*)\"""")


_FRAME_NAME = re.compile(r"(?i).+\.(?:png|jpe?g|webp|bmp|tiff?)")

VideoName = str | tuple[str, ...]
"""The name of a video file, or the names of the image files that are the frames of a recording."""


class ImageFolder:
    """The folder in which names of files are looked up; `unpacked` is a second one, for files from Parquet files."""

    def __init__(self, folder: Path, unpacked: Path | None = None) -> None:
        self._root = folder.resolve()
        self._roots = [self._root] if unpacked is None else [self._root, unpacked.resolve()]
        self._allowed = [*self._roots, *_find_hub_files(self._root)]
        self._spellings: dict[str, list[str]] | None = None

    def find(self, name: str, *, is_video: bool = False) -> Path:
        """Return the real path of the file `name`.

        Raises Unusable with IMAGE_NOT_A_NAME for a URL or an image written into the manifest, with PATH_ESCAPES if the
        path leads out of the folder once links are followed, and with IMAGE_MISSING if there is no such file; for a
        recording, with VIDEO_NOT_A_NAME and VIDEO_MISSING. The links of a Hugging Face snapshot may lead to the files
        of the same repository.
        """
        shown = name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}…"
        missing = Reason.VIDEO_MISSING if is_video else Reason.IMAGE_MISSING
        _check_is_name(name, is_video)
        try:
            paths = [(root / name).resolve() for root in self._roots]
            inside = [any(path.is_relative_to(folder) for folder in self._allowed) for path in paths]
            found = next((path for path, ours in zip(paths, inside, strict=True) if ours and path.is_file()), None)
        except (OSError, RuntimeError, ValueError) as error:
            # A name that is too long, a loop of links, a NUL in the name.
            why = error.strerror if isinstance(error, OSError) else error
            raise Unusable(missing, f"`{shown!r}`: cannot be reached in {self._root}: {why}") from error
        if found is not None:
            return found
        advice = self._suggest(name)
        if not inside[0]:
            raise Unusable(Reason.PATH_ESCAPES, f"`{shown}` leads to {paths[0]}, outside {self._root}{advice}")
        raise Unusable(missing, f"`{shown}`: no such file in {self._root}{advice}")

    def _suggest(self, name: str) -> str:
        """Return the end of a message: what the name may mean, or what else may be wrong."""
        if self._spellings is None:
            self._spellings = {}
            for path in _list_files(self._root):
                whole = _fold(path)
                last = whole.rpartition("/")[2]
                for spelling in {whole, last, _cut_suffix(whole), _cut_suffix(last)}:
                    self._spellings.setdefault(spelling, []).append(path)
        if os.path.islink(self._root / name):
            return "; it is a broken link: copy the files that the links point to (cp -rL)"
        if not self._spellings:
            return "; the folder is empty: correct `images`"
        for wanted in _list_readings(name):
            near = self._spellings.get(wanted, [])
            if len(near) == 1:
                return f"; did you mean `{near[0]}`? Names are paths inside the image folder; correct the manifest"
            if near:
                return f"; there are {len(near)} files with similar names, such as `{near[0]}`; correct the manifest"
        return ""


def _list_readings(name: str) -> Iterator[str]:
    """Yield what a wrong name may mean, the likeliest first; the beginning may be the folder itself: images/1.png."""
    folded = list(dict.fromkeys((_fold(name), _fold(unquote(name)))))
    for cut in (str, _cut_suffix):
        for wanted in folded:
            while wanted:
                yield cut(wanted)
                wanted = wanted.partition("/")[2]


def _cut_suffix(path: str) -> str:
    return path if "." not in path.rpartition("/")[2] else path.rpartition(".")[0]


def _check_is_name(name: str, is_video: bool) -> None:
    what = "recording" if is_video else "image"
    if name[:5].lower() == "data:":
        kind = f"a data URI of {len(name):,} characters"
    elif _URL.match(name):
        kind = f"the URL {name[:_MOST_SHOWN]}"
    elif len(name) > 1000 and re.fullmatch(r"[A-Za-z0-9+/=\s]+", name[:1000]):
        kind = f"written in base64 ({len(name):,} characters)"
    else:
        return
    detail = f"its {what} is {kind}; save the {what} as a file in the image folder, and give the file's name"
    raise Unusable(Reason.VIDEO_NOT_A_NAME if is_video else Reason.IMAGE_NOT_A_NAME, detail)


def _find_hub_files(root: Path) -> Iterator[Path]:
    """Yield the folder to which the links of a Hugging Face snapshot lead: <repository>/snapshots/<commit>/…."""
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots" and (blobs := folder.parent.parent / "blobs").is_dir():
            yield blobs


def _list_files(root: Path) -> Iterator[str]:
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            count += 1
            if count > _MOST_LISTED:
                return
            yield os.path.relpath(os.path.join(folder, name), root)


def _fold(name: str) -> str:
    """Return a path in which case, Unicode form, slashes and spaces at the ends do not matter."""
    parts = unicodedata.normalize("NFKC", name).casefold().replace("\\", "/").split("/")
    return "/".join(part.strip() for part in parts if part.strip() not in ("", "."))


def _unpack(value: object) -> object:
    """Return the list that was written into one cell, an empty list for an empty value, or else the value.

    A list may be written as JSON, as Python, or as numpy prints an array.
    """
    if value is None or value == "" or value != value:
        return []
    if not isinstance(value, str) or not value.startswith("["):
        return value
    if _NUMPY_NAMES.fullmatch(value.strip()):  # which Python would read as one name, all of them joined
        return [a or b for a, b in _NUMPY_NAME.findall(value)]
    listed = parse_literal_list(value)
    return value if listed is None else listed


def read_image_names(value: object) -> list[str]:
    """Return the image names in a list, a single name, a list written into one cell, or an empty value."""
    value = _unpack(value)
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        entries = cast(list[object], value)
        names = [name for name in entries if isinstance(name, str)]
        if len(names) == len(entries):
            return names
    raise Unusable(Reason.IMAGE_NOT_A_NAME, f"its image is {repr(cast(object, value))[:80]}, expected file names")


def read_video_names(value: object) -> list[VideoName]:
    """Return the recordings in a name, a list of names and lists of names, such a list in one cell, or an empty value.

    A list that contains only names of image files is one recording, and these are its frames.
    """
    value = _unpack(value)
    if isinstance(value, str):
        return [value]
    entries = cast(list[object], value) if isinstance(value, list) else [value]
    if entries and all(isinstance(entry, str) and _FRAME_NAME.fullmatch(entry) for entry in entries):
        return [tuple(cast(list[str], entries))]
    names: list[VideoName] = []
    for entry in entries:
        frames = cast(list[object], entry) if isinstance(entry, list) else []
        if isinstance(entry, str) and entry:
            names.append(entry)
        elif frames and all(isinstance(frame, str) and frame for frame in frames):
            names.append(tuple(cast(list[str], frames)))
        else:
            detail = f"its recording is {repr(entry)[:_MOST_SHOWN]}, expected file names or lists of the frames' names"
            raise Unusable(Reason.VIDEO_NOT_A_NAME, detail)
    return names
