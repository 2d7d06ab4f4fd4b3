"""What a finished run's folder says is taught, where an item of the labelled set and one of the pool share an id."""

import json
from pathlib import Path

import pytest

from flows.config import EvaluateConfig
from tasks.demo.dataset import write_demo
from tasks.errors import ConfigError
from tasks.evaluation.variants import Results
from tasks.items.settings import SourceConfig
from tasks.packs.pack import load_pack
from tasks.records import Example, Message, Origin, Record
from tasks.storage.stages import StageRecord, write_stage
from tasks.students.settings import StudentSpec
from tests.conftest import PrefectServer
from tests.tasks.making import prediction


def one_item(manifest: Path, truth: Path, split: str) -> Path:
    """A manifest beside that one, of its first sound item, called 7."""
    sound = next(x["id"] for x in map(json.loads, truth.read_text("utf-8").splitlines()) if x["split"] == split)
    item = next(x for x in json.loads(manifest.read_text("utf-8")) if x["id"] == sound)
    file = manifest.with_name("seven.json")
    file.write_text(json.dumps([item | {"id": "7"}]), "utf-8")
    return file.resolve()


def stage(folder: Path, rows: list[Record]) -> None:
    record = StageRecord(stage=folder.name, recipe="r", read=0, kept=0, dropped=0)
    write_stage(folder, record, rows, [], ["7" for _ in rows])


def emitted(source: Path, reason: str) -> Example:
    turns = (Message(role="user", content="?"), Message(role="assistant", content="x"))
    return Example(
        sample_id="7", messages=turns, images=(), label="x", reason=reason, origin=Origin.GIVEN, why="",
        source=str(source),
    )  # fmt: skip


def test_reasons_are_of_the_item_that_was_emitted(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from prefect import flow

    from flows.run_left import results_of

    paths = write_demo(tmp_path / "data", labelled=40, unlabelled=40, test=20)
    ours = one_item(paths.labelled_manifest, paths.truth, "labelled")
    theirs = one_item(paths.unlabelled_manifest, paths.truth, "unlabelled")
    config = EvaluateConfig(
        pack="demo",
        labelled=SourceConfig(manifest=ours, images=paths.labelled_images),
        unlabelled=SourceConfig(manifest=theirs, images=paths.unlabelled_images),
        evaluation=SourceConfig(manifest=paths.test_manifest, images=paths.test_images),
        student=StudentSpec(base="none"),
        output=tmp_path / "run",
        images=tmp_path / "images",
    )

    @flow
    def looked() -> Results:
        return results_of(config, load_pack("demo"))

    stage(config.output / "rationales", [prediction("7", reason="ours")])
    stage(config.output / "emit", [emitted(ours, ""), emitted(theirs, "theirs")])
    assert looked().reasons == {}
    stage(config.output / "emit", [emitted(ours, "ours"), emitted(theirs, "")])
    assert looked().reasons == {"7": "ours"}
    stage(config.output / "emit", [emitted(tmp_path / "elsewhere.json", "")])
    with pytest.raises(ConfigError, match=r"item 7 of .*elsewhere\.json is in neither set now"):
        looked()
