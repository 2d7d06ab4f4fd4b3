"""The disk is full in the ledger or in an export: the error says so, no file is half-written, a rerun continues."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import PrefectServer
from tests.flows.bad_days import (
    count_lost_items,
    count_reasked_answers,
    find_in_log,
    print_report,
    read_log,
    start_light,
)
from tests.flows.small_run import small_config
from tests.flows.test_kill import count_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def mount_small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of that size mounted at `folder`, while the block lasts; skips the test where none may be mounted."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(disk: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)


def list_partial_files(folder: Path) -> list[Path]:
    """What a write that was broken off leaves: hidden files, but for locks, notes and a database's own."""
    return [f for f in folder.rglob(".*") if f.is_file() and f.name not in {".run.lock", ".run.json"}]


def test_disk_full_in_the_ledger(prefect_server: PrefectServer, tmp_path: Path) -> None:
    small_config(tmp_path)
    with mount_small_disk(tmp_path / "disk", 400) as disk:
        ledger = disk / "ledger.sqlite"
        assert start_light(tmp_path, ledger=str(ledger)).wait(timeout=600) != 0
        seen = find_in_log(tmp_path, "LedgerError: .*free disk space and run again")
        assert str(ledger) in seen
        kept, since = count_answers(disk), time.time()
        assert kept > 0  # what was written before stays
        grow(disk, 20_000)
        assert start_light(tmp_path, ledger=str(ledger)).wait(timeout=600) == 0
        again, missing = count_reasked_answers(tmp_path, kept, since, ledger=ledger), count_lost_items(tmp_path / "run")
    print_report(f"disk full in the ledger (after {kept} answers)", seen, again, missing)
    assert (again, missing) == (0, 0)


def test_disk_full_in_an_export(prefect_server: PrefectServer, tmp_path: Path) -> None:
    """The stages before take about 200 KB; the export's copies of 120 images do not fit any more."""
    with mount_small_disk(tmp_path / "disk", 700) as disk:
        output = disk / "run"
        changes = {"output": str(output), "emit": {"export": {"image_paths": "copy"}}}
        assert start_light(tmp_path, slow=0.0, **changes).wait(timeout=600) != 0
        seen = find_in_log(tmp_path, "StorageError: .*free disk space and run again")
        assert str(output) in seen
        assert "image_unreadable" not in read_log(tmp_path)  # no export goes without what did not fit
        assert not (output / "emit" / "record.json").exists()
        assert list_partial_files(output) == []
        kept = count_answers(tmp_path)
        grow(disk, 50_000)
        assert start_light(tmp_path, slow=0.0, **changes).wait(timeout=600) == 0
        assert list_partial_files(output) == []
        assert count_answers(tmp_path) == kept
        missing = count_lost_items(output)
    print_report("disk full in an export", seen, 0, missing)
    assert missing == 0
