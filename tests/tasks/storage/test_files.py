"""Files that the disk refuses, here for their size: worded, and nothing half written in their place."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.dataset.export.exports import write_exports
from tasks.dataset.settings import ExportSpec, Format
from tasks.errors import StorageError
from tasks.records import Dropped, Pair
from tasks.storage.files import describe_full_disk, report_full_disk, write_bytes
from tasks.storage.rows import RowWriter, read_rows, write_rows
from tests.tasks.dataset.export.making import ask


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes in the block; the system then says EFBIG, as a full disk says ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FIRST = ask(images=1)


def make_dropped(n: int) -> list[Dropped]:
    return [Dropped(sample_id=f"item-{i}", stage="x", reason="y", detail=f"{i * 7919:x}") for i in range(n)]


def test_bytes(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_bytes(file, b"before")
    with (
        limit_file_size(1000),
        pytest.raises(StorageError, match=f"{file} cannot be .*; free disk space and run again"),
    ):
        write_bytes(file, b"x" * 5000)
    assert file.read_bytes() == b"before" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("rows", [3000, 12_000])  # at the end; and in the middle, with the first thousands
def test_rows(tmp_path: Path, rows: int) -> None:
    file = tmp_path / "kept.parquet"
    write_rows(file, make_dropped(1))
    with limit_file_size(5000), pytest.raises(StorageError, match=f"{file} cannot be written"):
        write_rows(file, make_dropped(rows))
    assert read_rows(file, Dropped) == make_dropped(1) and list(tmp_path.iterdir()) == [file]


def test_rows_whose_maker_failed_raise_its_error(tmp_path: Path) -> None:
    with (
        limit_file_size(1000),
        pytest.raises(ValueError, match="as asked"),
        RowWriter(tmp_path / "x", Dropped) as writer,
    ):
        for row in make_dropped(200):
            writer.write(row)
        raise ValueError("as asked")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", list(Format))
def test_exports(tmp_path: Path, format: Format) -> None:
    spec = ExportSpec(formats=(format,))
    write_exports(tmp_path, "before", [FIRST], spec)
    there = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    pairs = (Pair(messages=FIRST.messages, rejected="no"),)
    many = [ask(sample_id=f"item-{i}").model_copy(update={"pairs": pairs}) for i in range(300)]
    with limit_file_size(4096), pytest.raises(StorageError, match=f"{tmp_path}.* cannot be written"):
        write_exports(tmp_path, "after", many, spec)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == there


def test_a_full_disk_is_known_however_it_is_said() -> None:
    assert describe_full_disk(OSError(28, "x")) == "No space left on device"
    assert (
        describe_full_disk(RuntimeError("I/O error: No space left on device (os error 28)"))
        == "no space left on device"
    )
    assert describe_full_disk(sqlite3.OperationalError("database or disk is full")) == "disk is full"
    assert describe_full_disk(PermissionError(13, "no space left on device")) is None
    assert describe_full_disk(ValueError("disk is full")) is None


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), report_full_disk(tmp_path):
        raise PermissionError(13, "x")
