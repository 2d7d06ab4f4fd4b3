import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks.items.file_states import file_state, folder_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        (images / name).write_bytes(b"12345")
        os.utime(images / name, ns=(10**18, 10**18))
    return images


def test_a_folders_state_changes_with_every_file(folder: Path) -> None:
    states = [folder_state(folder)]
    (folder / "sub" / "c.png").write_bytes(b"54321")
    states.append(folder_state(folder))
    os.utime(folder / "sub" / "c.png", ns=(1, 1))  # older than the newest: a maximum would not see it
    states.append(folder_state(folder))
    (folder / "a.png").rename(folder / "d.png")
    states.append(folder_state(folder))
    (folder / "b.png").unlink()
    states.append(folder_state(folder))
    (folder / "sub" / "new").touch()
    states.append(folder_state(folder))
    assert len(set(states)) == len(states)
    assert [state.split(":")[0] for state in states] == ["3", "3", "3", "3", "2", "3"]


def test_swapping_two_files_changes_the_state(folder: Path) -> None:
    os.utime(folder / "b.png", ns=(2, 2))
    before = folder_state(folder)
    (folder / "a.png").rename(folder / "x")
    (folder / "b.png").rename(folder / "a.png")
    (folder / "x").rename(folder / "b.png")
    assert folder_state(folder) != before


def test_a_folders_state_does_not_depend_on_its_path(folder: Path, tmp_path: Path) -> None:
    before = folder_state(folder)
    assert folder_state(folder.rename(tmp_path / "moved")) == before
    assert folder_state(folder) == folder_state(folder / "none")


def test_broken_links_and_missing_files_are_accepted(folder: Path, tmp_path: Path) -> None:
    (folder / "broken").symlink_to(tmp_path / "nothing")
    (folder / "circle").symlink_to(folder)
    before = folder_state(folder)
    (folder / "link.png").symlink_to(folder / "a.png")
    (folder / os.fsdecode(b"\xff.png")).touch()
    assert folder_state(folder).startswith("5:") and folder_state(folder) != before


class Entry:
    """An entry of a folder whose file is looked at in vain."""

    def __init__(self, entry: os.DirEntry[str], fault: OSError) -> None:
        self._entry, self._fault, self.path = entry, fault, entry.path

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._entry.is_dir(follow_symlinks=follow_symlinks)

    def is_file(self) -> bool:
        return self._entry.is_file()

    def stat(self) -> os.stat_result:
        raise self._fault


@pytest.fixture
def barred(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Let the system refuse, with that error, to list the folder of a name or to look at the file; tests may be root,
    whom no permission stops."""
    really = os.scandir

    def bar(name: str, number: int) -> None:
        fault = OSError(number, os.strerror(number), name)

        @contextmanager
        def scandir(folder: Any) -> Iterator[Iterator[Any]]:
            if Path(folder).name == name:
                raise fault
            with really(folder) as entries:
                yield (Entry(one, fault) if one.name == name and one.is_file() else one for one in entries)

        monkeypatch.setattr(os, "scandir", scandir)

    return bar


@pytest.mark.parametrize("name", ["sub", "a.png", "images"])
def test_unreadable_files_differ_from_missing_ones(
    folder: Path, barred: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    there = folder_state(folder)
    barred(name, errno.EACCES)
    unreachable = folder_state(folder)
    assert folder_state(folder) == unreachable
    monkeypatch.undo()
    assert folder_state(folder) == there
    if name == "images":
        gone = folder_state(folder / "none")
    else:
        (folder / name).rename(folder.parent / name)
        gone = folder_state(folder)
    assert len({there, unreachable, gone}) == 3


@pytest.mark.parametrize("name", ["sub", "a.png"])
def test_a_file_removed_during_reading_counts_as_missing(
    folder: Path, barred: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    barred(name, errno.ENOENT)
    before = folder_state(folder)
    monkeypatch.undo()
    (folder / name).rename(folder.parent / name)
    assert folder_state(folder) == before


def test_a_link_to_itself_does_not_hang(folder: Path) -> None:
    before = folder_state(folder)
    (folder / "loop").symlink_to("loop")
    looping = folder_state(folder)
    (folder / "loop").unlink()
    (folder / "loop").touch()
    assert len({before, looping, folder_state(folder)}) == 3
    assert folder_state(folder) != looping
    (folder / "loop.json").symlink_to("loop.json")
    assert file_state(folder / "loop.json") == "unreachable"


def test_a_manifest_in_a_forbidden_folder_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, really = tmp_path / "home" / "a.json", Path.stat
    manifest.parent.mkdir()
    manifest.write_text("[1]", encoding="utf-8")

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.parent == manifest.parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path, follow_symlinks=follow_symlinks)

    there = file_state(manifest), file_state(manifest.parent)
    monkeypatch.setattr(Path, "stat", stat)
    assert (file_state(manifest), file_state(manifest.parent)) == ("unreachable", "unreachable")
    monkeypatch.undo()
    assert (file_state(manifest), file_state(manifest.parent)) == there


def test_a_folder_of_manifests_changes_with_each_of_them_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8")
    states = [file_state(tmp_path)]
    (tmp_path / "b.jsonl").write_text("{}", encoding="utf-8")
    states.append(file_state(tmp_path))
    (tmp_path / "b.jsonl").write_text("{} ", encoding="utf-8")
    states.append(file_state(tmp_path))
    (tmp_path / "b.jsonl").rename(tmp_path / "c.jsonl")
    states.append(file_state(tmp_path))
    assert len(set(states)) == 4
    (tmp_path / ".c.jsonl.1").write_text("x", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert file_state(tmp_path) == states[-1]


def test_a_files_state_is_its_size_and_time(tmp_path: Path) -> None:
    assert file_state(tmp_path / "none") == "missing"
    (tmp_path / "a").write_bytes(b"123")
    os.utime(tmp_path / "a", ns=(5, 5))
    assert file_state(tmp_path / "a") == "3:5"
