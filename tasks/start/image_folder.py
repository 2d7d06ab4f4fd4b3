"""Find the folder in which image names are looked up; match names by their last part if no folder has them all."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOKED_UP = 200
"""Names that are looked up in each folder."""
_MOST_FOLDERS = 50
_MOST_FILES = 500_000


@dataclass(frozen=True)
class Located:
    """The folder of the images, and what the names in the manifest must become; None if they are paths in it."""

    folder: Path
    found: int
    looked_up: int
    rename: Callable[[str], str] | None = None
    by_last_part: bool = False
    """Whether only the last parts of the names, with or without extension, are those of files."""


def locate_images(names: Sequence[str], base: Path, given: Path | None) -> Located:
    """Return the folder where most of `names` are: `given`, or one near the manifest's folder `base`.

    That is `base`, a folder in it, its parent, or one beside it. Names with `..` are renamed to paths in the common
    folder of the images.

    If fewer than half of the names are paths in any of these folders, but half of them name exactly one file by their
    last part, with or without its extension, `rename` returns that file's path in the folder.
    """
    distinct = list(dict.fromkeys(names))
    sample = distinct[:: max(1, len(distinct) // _LOOKED_UP)]
    best = max(
        (_look_up(sample, folder) for folder in _list_folders(sample, base, given)), key=lambda found: found.found
    )
    if 2 * best.found >= len(sample):
        return _avoid_parents(sample, best) if any(".." in Path(name).parts for name in sample) else best
    root = given or base
    paths = _index_files(root)

    def rename(name: str) -> str:
        last = name.replace("\\", "/").rpartition("/")[2]
        there = paths.get(last) or paths.get(os.path.splitext(last)[0]) or []
        return there[0] if len(there) == 1 else name

    renamed = _look_up([rename(name) for name in sample], root)
    return Located(root, renamed.found, len(sample), rename, True) if 2 * renamed.found >= max(1, len(sample)) else best


def _avoid_parents(names: Sequence[str], located: Located) -> Located:
    """Return the common folder of images whose names lead out of a folder with `..`, which intake refuses."""
    folder = located.folder
    there = [os.path.normpath(folder / name) for name in names if _is_file(folder / name)]
    root = os.path.commonpath([os.path.dirname(path) for path in there])

    def rename(name: str) -> str:
        return os.path.relpath(os.path.normpath(folder / name), root)

    return Located(Path(root), located.found, located.looked_up, rename)


def _look_up(names: Sequence[str], folder: Path) -> Located:
    return Located(folder, sum(_is_file(folder / name) for name in names), len(names))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a NUL
        return False


def _list_folders(names: Sequence[str], base: Path, given: Path | None) -> Iterable[Path]:
    """Return the folders in which names may be paths, the likeliest first."""
    if given is not None:
        return [given, given.parent]
    parent = Path(os.path.normpath(base / ".."))
    folders = [base, *_list_inside(base), parent, *_list_inside(parent)]
    absolute = [name for name in names if os.path.isabs(name)]
    return [*folders, Path(os.path.commonpath([os.path.dirname(name) for name in absolute]))] if absolute else folders


def _list_inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())[:_MOST_FOLDERS]
    except OSError:  # a folder that may not be read
        return []


def _index_files(root: Path) -> dict[str, list[str]]:
    """Map the last part of each file's path below `root`, with and without extension, to the paths that have it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            count += 1
            if count > _MOST_FILES:
                return found
            path = os.path.relpath(os.path.join(folder, name), root)
            for spelling in {name, os.path.splitext(name)[0]}:
                found[spelling].append(path)
    return found
