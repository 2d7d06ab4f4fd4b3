import errno
import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.errors import EngineError
from tasks.models.engines.ray.cluster import NodeRequirements, RayRunner, Runner, mark_shared_folders

RUNNER: TypeAdapter[Runner] = TypeAdapter(Runner)


def test_the_runner_is_threads_or_a_ray_cluster() -> None:
    assert RUNNER.validate_python("threads") == "threads"
    cluster = RUNNER.validate_python({"kind": "ray", "address": "10.0.0.1:6379", "replicas": 4, "gpus_per_replica": 2})
    assert cluster == RayRunner(address="10.0.0.1:6379", replicas=4, gpus_per_replica=2)
    assert RUNNER.validate_python({"kind": "ray"}) == RayRunner(address="auto", replicas=1, gpus_per_replica=0)
    for wrong in ("processes", {"kind": "ray", "replicas": 0}, {"kind": "ray", "replica": 2}):
        with pytest.raises(ValidationError):
            RUNNER.validate_python(wrong)


def test_a_node_changes_to_the_drivers_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    requirements = mark_shared_folders([Path("out"), tmp_path / "images", tmp_path / "out"], [Path("pictures")])
    assert [folder for folder, _ in requirements.marks] == [tmp_path / "out", tmp_path / "images"]
    assert (
        mark_shared_folders([Path("out")], []).marks == requirements.marks[:1]
    )  # two runs share a folder and its mark
    monkeypatch.chdir("/")
    requirements.adopt()
    assert Path.cwd() == tmp_path


def test_two_runs_that_start_at_once_share_one_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quicker: list[NodeRequirements] = []

    def late() -> UUID:
        """Write the mark of another run just before this run writes its own."""
        monkeypatch.undo()
        quicker.append(mark_shared_folders([tmp_path / "out"], []))
        return uuid4()

    monkeypatch.setattr("tasks.models.engines.ray.cluster.uuid4", late)
    assert mark_shared_folders([tmp_path / "out"], []).marks == quicker[0].marks
    quicker[0].adopt()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".labelstill-shared"]


def test_a_mark_is_written_without_links_and_over_an_unreadable_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".labelstill-shared").write_bytes(b"\xff")
    ((_, over_another),) = mark_shared_folders([tmp_path], []).marks

    def link(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", link)
    ((_, without_links),) = mark_shared_folders([tmp_path / "out"], []).marks
    assert len(over_another) == len(without_links) == 32
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".labelstill-shared"]


@pytest.mark.parametrize("lost", ["out", "pictures"])
def test_a_folder_that_a_node_does_not_see_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    requirements = mark_shared_folders([Path("out")], [Path("pictures")])
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match=rf"Ray node \S+ .*/{lost}\b.*: mount the same file system"):
        requirements.adopt()


def test_another_version_on_a_node_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    requirements = mark_shared_folders([tmp_path / "out"], [])
    monkeypatch.setattr("tasks.models.engines.ray.cluster.code_version", lambda: "0123456789ab")
    with pytest.raises(EngineError, match="runs another version of labelstill"):
        requirements.adopt()
