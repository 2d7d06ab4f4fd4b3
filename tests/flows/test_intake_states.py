import os
from pathlib import Path

import pytest

from tasks.file_states import file_state, folder_state


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


def test_two_files_that_change_places_are_seen(folder: Path) -> None:
    os.utime(folder / "b.png", ns=(2, 2))
    before = folder_state(folder)
    (folder / "a.png").rename(folder / "x")
    (folder / "b.png").rename(folder / "a.png")
    (folder / "x").rename(folder / "b.png")
    assert folder_state(folder) != before


def test_a_folders_state_is_that_of_what_is_in_it_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    before = folder_state(folder)
    assert folder_state(folder.rename(tmp_path / "moved")) == before
    assert folder_state(folder) == folder_state(folder / "none")


def test_links_and_files_that_are_gone_are_no_trouble(folder: Path, tmp_path: Path) -> None:
    (folder / "broken").symlink_to(tmp_path / "nothing")
    (folder / "circle").symlink_to(folder)
    before = folder_state(folder)
    (folder / "link.png").symlink_to(folder / "a.png")
    (folder / os.fsdecode(b"\xff.png")).touch()
    assert folder_state(folder).startswith("5:") and folder_state(folder) != before


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
