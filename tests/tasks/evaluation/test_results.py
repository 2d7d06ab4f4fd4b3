"""What a finished run's folder says is taught, where an item of the labelled set and one of the pool share an id."""

from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ConfigError
from tasks.evaluation.results import Results, check_held_out, read_results
from tasks.records import Example, Message, Origin, Record, Split
from tasks.storage.stage_record import StageRecord
from tasks.storage.stages import write_stage
from tests.tasks.making import prediction, sample


def write(folder: Path, rows: list[Record], **facts: Any) -> None:
    record = StageRecord(stage=folder.name, recipe="r", read=0, kept=0, dropped=0, **facts)
    write_stage(folder, record, rows, [], ["7" for _ in rows])


def emitted(source: str, reason: str) -> Example:
    turns = (Message(role="user", content="?"), Message(role="assistant", content="x"))
    return Example(
        sample_id="7", messages=turns, images=(), label="x", reason=reason, origin=Origin.GIVEN, why="",
        source=source,
    )  # fmt: skip


def test_reasons_are_of_the_item_that_was_emitted(tmp_path: Path) -> None:
    ours, theirs = sample("7", source="ours.json"), sample("7", source="theirs.json", split=Split.UNLABELLED)

    def read() -> Results:
        return read_results(tmp_path, [ours], [theirs])

    write(tmp_path / "rationales", [prediction("7", reason="ours")])
    write(tmp_path / "emit", [emitted("ours.json", ""), emitted("theirs.json", "theirs")])
    assert read().reasons == {}
    write(tmp_path / "emit", [emitted("ours.json", "ours"), emitted("theirs.json", "")])
    assert read().reasons == {"7": "ours"}
    write(tmp_path / "emit", [emitted("elsewhere.json", "")])
    with pytest.raises(ConfigError, match=r"item 7 of elsewhere\.json is no longer in the labelled set or the pool"):
        read()


def test_held_out_items_that_emit_has_not_seen_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "emit", [], inputs={"evaluation": "digest"})
    check_held_out(tmp_path, tmp_path / "test.json", "digest")
    with pytest.raises(ConfigError, match=r"was made without the current .*test\.json"):
        check_held_out(tmp_path, tmp_path / "test.json", "another")
