import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.items.file_states import read_file_state, read_folder_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        (images / name).write_bytes(b"12345")
        os.utime(images / name, ns=(10**18, 10**18))
    return images


def test_a_folders_state_changes_with_every_file(folder: Path) -> None:
    states = [read_folder_state(folder)]
    (folder / "sub" / "c.png").write_bytes(b"54321")
    states.append(read_folder_state(folder))
    os.utime(folder / "sub" / "c.png", ns=(1, 1))  # older than the newest: a maximum would not see it
    states.append(read_folder_state(folder))
    (folder / "a.png").rename(folder / "d.png")
    states.append(read_folder_state(folder))
    (folder / "b.png").unlink()
    states.append(read_folder_state(folder))
    (folder / "sub" / "new").touch()
    states.append(read_folder_state(folder))
    assert len(set(states)) == len(states)
    assert [state.split(":")[0] for state in states] == ["3", "3", "3", "3", "2", "3"]


def test_swapping_two_files_changes_the_state(folder: Path) -> None:
    os.utime(folder / "b.png", ns=(2, 2))
    before = read_folder_state(folder)
    (folder / "a.png").rename(folder / "x")
    (folder / "b.png").rename(folder / "a.png")
    (folder / "x").rename(folder / "b.png")
    assert read_folder_state(folder) != before


def test_a_folders_state_does_not_depend_on_its_path(folder: Path, tmp_path: Path) -> None:
    before = read_folder_state(folder)
    assert read_folder_state(folder.rename(tmp_path / "moved")) == before
    assert read_folder_state(folder) == read_folder_state(folder / "none")


def test_broken_links_and_missing_files_are_accepted(folder: Path, tmp_path: Path) -> None:
    (folder / "broken").symlink_to(tmp_path / "nothing")
    (folder / "circle").symlink_to(folder)
    before = read_folder_state(folder)
    (folder / "link.png").symlink_to(folder / "a.png")
    (folder / os.fsdecode(b"\xff.png")).touch()
    assert read_folder_state(folder).startswith("5:") and read_folder_state(folder) != before


@pytest.fixture
def barred(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Make listing the folder, or examining the file, of a name fail with an error; tests may run as root, whom no
    permission stops."""
    scandir, stat = os.scandir, os.stat

    def bar(name: str, number: int) -> None:
        def list_folder(folder: Any) -> Any:
            if Path(folder).name == name:
                raise OSError(number, os.strerror(number), str(folder))
            return scandir(folder)

        def examine(path: Any, **options: Any) -> os.stat_result:
            if str(path).endswith(f"/{name}") and name.endswith(".png"):
                raise OSError(number, os.strerror(number), str(path))
            return stat(path, **options)

        monkeypatch.setattr(os, "scandir", list_folder)
        monkeypatch.setattr(os, "stat", examine)

    return bar


@pytest.mark.parametrize("name", ["sub", "a.png", "images"])
def test_unreadable_files_differ_from_missing_ones(
    folder: Path, barred: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    there = read_folder_state(folder)
    barred(name, errno.EACCES)
    unreachable = read_folder_state(folder)
    assert read_folder_state(folder) == unreachable
    monkeypatch.undo()
    assert read_folder_state(folder) == there
    if name == "images":
        gone = read_folder_state(folder / "none")
    else:
        (folder / name).rename(folder.parent / name)
        gone = read_folder_state(folder)
    assert len({there, unreachable, gone}) == 3


@pytest.mark.parametrize("name", ["sub", "a.png"])
def test_a_file_removed_during_reading_counts_as_missing(
    folder: Path, barred: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    barred(name, errno.ENOENT)
    before = read_folder_state(folder)
    monkeypatch.undo()
    (folder / name).rename(folder.parent / name)
    assert read_folder_state(folder) == before


def test_a_link_to_itself_does_not_hang(folder: Path) -> None:
    before = read_folder_state(folder)
    (folder / "loop").symlink_to("loop")
    looping = read_folder_state(folder)
    (folder / "loop").unlink()
    (folder / "loop").touch()
    assert len({before, looping, read_folder_state(folder)}) == 3
    assert read_folder_state(folder) != looping
    (folder / "loop.json").symlink_to("loop.json")
    assert read_file_state(folder / "loop.json") == "unreachable"


def test_a_manifest_in_a_forbidden_folder_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, really = tmp_path / "home" / "a.json", Path.stat
    manifest.parent.mkdir()
    manifest.write_text("[1]", encoding="utf-8")

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.parent == manifest.parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path, follow_symlinks=follow_symlinks)

    there = read_file_state(manifest), read_file_state(manifest.parent)
    monkeypatch.setattr(Path, "stat", stat)
    assert (read_file_state(manifest), read_file_state(manifest.parent)) == ("unreachable", "unreachable")
    monkeypatch.undo()
    assert (read_file_state(manifest), read_file_state(manifest.parent)) == there


def test_a_folder_of_manifests_changes_with_each_of_them_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8")
    states = [read_file_state(tmp_path)]
    (tmp_path / "b.jsonl").write_text("{}", encoding="utf-8")
    states.append(read_file_state(tmp_path))
    (tmp_path / "b.jsonl").write_text("{} ", encoding="utf-8")
    states.append(read_file_state(tmp_path))
    (tmp_path / "b.jsonl").rename(tmp_path / "c.jsonl")
    states.append(read_file_state(tmp_path))
    assert len(set(states)) == 4
    (tmp_path / ".c.jsonl.1").write_text("x", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert read_file_state(tmp_path) == states[-1]


def test_a_files_state_is_its_size_and_time(tmp_path: Path) -> None:
    assert read_file_state(tmp_path / "none") == "missing"
    (tmp_path / "a").write_bytes(b"123")
    os.utime(tmp_path / "a", ns=(5, 5))
    assert read_file_state(tmp_path / "a") == "3:5"
