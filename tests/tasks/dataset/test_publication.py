import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.dataset.publication import find_earlier, make_candidate, make_version_folder, publish
from tasks.dataset.versions import read_versions
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import StageRecord, read_record
from tasks.storage.stages import write_stage
from tests.conftest import ROOT
from tests.tasks.dataset.test_versions import Example, example


def make_version(output: Path, *ids: str) -> Path:
    """Write a finished version with these items and make it the candidate."""
    folder = make_version_folder(output)
    record = StageRecord(stage="emit", recipe="r", read=0, kept=0, dropped=0)
    write_stage(folder, record, [example(i) for i in ids], [], ids)
    make_candidate(output, folder, keep=3)
    return folder


def read_ids(folder: Path) -> list[str]:
    return [row.sample_id for row in read_rows(folder / "kept.parquet", Example)]


def list_folders(output: Path) -> list[str]:
    return sorted(path.name for path in output.glob("emit-*"))


def test_a_version_is_published_as_it_is(tmp_path: Path) -> None:
    folder = make_version(tmp_path, "a")
    assert not (tmp_path / "emit").exists()
    version = publish(tmp_path, folder, keep=3)
    assert (tmp_path / "emit").resolve() == folder
    assert [v.version for v in read_versions(tmp_path)] == [version.version]


def test_the_output_folder_can_be_moved(tmp_path: Path) -> None:
    publish(tmp_path / "run", make_version(tmp_path / "run", "a"), keep=3)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert read_ids(tmp_path / "moved" / "emit") == ["a"]


def test_an_earlier_version_is_published_again(tmp_path: Path) -> None:
    for i in "abc":
        publish(tmp_path, make_version(tmp_path, i), keep=3)
    for i in "ba":
        earlier = find_earlier(tmp_path)
        assert earlier is not None
        publish(tmp_path, earlier, keep=3)
        assert read_ids(tmp_path / "emit") == [i]
    assert find_earlier(tmp_path) is None


def test_only_the_last_versions_and_the_candidate_are_kept(tmp_path: Path) -> None:
    for i in "abcd":
        publish(tmp_path, make_version(tmp_path, i), keep=3)
    assert list_folders(tmp_path) == ["emit-2", "emit-3", "emit-4"]
    make_version(tmp_path, "held back")
    make_version(tmp_path, "held back too")
    assert list_folders(tmp_path) == ["emit-2", "emit-3", "emit-4", "emit-6"]
    assert read_ids(tmp_path / "candidate") == ["held back too"]


def test_a_killed_run_leaves_no_version(tmp_path: Path) -> None:
    publish(tmp_path, make_version(tmp_path, "a"), keep=3)
    (make_version_folder(tmp_path) / "kept.parquet").write_bytes(b"half of it")
    publish(tmp_path, make_version(tmp_path, "b"), keep=3)
    assert list_folders(tmp_path) == ["emit-1", "emit-3"]
    earlier = find_earlier(tmp_path)
    assert earlier is not None and earlier.name == "emit-1"


def test_a_folder_from_before_there_were_links_becomes_the_earlier_version(tmp_path: Path) -> None:
    record = StageRecord(stage="emit", recipe="r", read=0, kept=0, dropped=0)
    write_stage(tmp_path / "emit", record, [example("old")], [], ["old"])
    publish(tmp_path, make_version(tmp_path, "new"), keep=3)
    assert read_ids(tmp_path / "emit") == ["new"]
    earlier = find_earlier(tmp_path)
    assert earlier is not None and read_ids(earlier) == ["old"]


_FLIP = """
import sys
from pathlib import Path
from tasks.dataset.publication import publish
output = Path(sys.argv[1])
while True:
    for name in ("emit-1", "emit-2"):
        publish(output, output / name, 9)
        print("published", flush=True)
"""


@pytest.mark.parametrize("publications", [1, 2, 5])
def test_a_kill_at_any_moment_leaves_a_whole_version_published(tmp_path: Path, publications: int) -> None:
    publish(tmp_path, make_version(tmp_path, "a"), keep=9)
    publish(tmp_path, make_version(tmp_path, "b"), keep=9)
    command = [sys.executable, "-c", _FLIP, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        for _ in range(publications):
            assert child.stdout.readline()
        child.kill()
    assert read_record(tmp_path / "emit") is not None
    assert read_ids(tmp_path / "emit") in (["a"], ["b"])
    assert read_versions(tmp_path)
