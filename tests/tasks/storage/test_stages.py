import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ItemCountError
from tasks.evaluation.scores import Scored
from tasks.media import Box, ImagePart, TextPart, VideoPart
from tasks.models.engines.spec import EngineSpec
from tasks.pseudo_labels.decide import PoolDecision, Trusted
from tasks.pseudo_labels.evidence import Evidence
from tasks.records import (
    Dropped,
    Example,
    FreeText,
    Generation,
    Interval,
    LabelAnswer,
    Message,
    Origin,
    Pair,
    Record,
    Request,
    ReviewCase,
    Sample,
    Sampling,
    Vote,
)
from tasks.review.verdicts import Verdict
from tasks.storage.files import write_bytes
from tasks.storage.rows import StoredRows, read_rows, write_rows
from tasks.storage.stage_record import Costs, StageRecord, read_record
from tasks.storage.stages import check_item_counts, find_finished_record, hash_recipe, write_stage
from tests.recordings import describe_video
from tests.tasks.making import correction, generation, image, prediction, prompter, proposal, sample


def question(**fields: object) -> Request:
    return prompter().classify(sample(), Sampling()).model_copy(update=fields)


def example(**fields: object) -> Example:
    messages = (Message(role="user", content="<image>"), Message(role="assistant", content='{"a": "“b”"}'))
    values = {
        "messages": messages,
        "images": (image(),),
        "label": "x",
        "origin": Origin.GIVEN,
        "why": "w",
        "source": "f",
    }
    return Example.model_validate({"sample_id": "s", **values, **fields})


ROWS: dict[str, list[Record]] = {
    "samples": [sample("a"), sample("b", image(), "文\n", image("2")), sample("c", given=None)],
    "samples without labels": [sample("a", given=None), sample("b", given=None)],
    "predictions with different keys": [
        prediction("a", probabilities={"x": 0.1, "y": 0.9}, votes={"x": 1}),
        prediction("b", probabilities={"z": 1.0}),
        prediction("c", None),
    ],
    "predictions with empty dicts only": [prediction("a"), prediction("b")],
    "corrections": [correction("a"), proposal("b"), correction("c", label=None, reviewed=True, verdict="neither")],
    "corrections with nothing known": [correction("a", predicted=None)],
    "review cases": [
        ReviewCase(sample_id="a", parts=(TextPart(text="文"),), labels=("x", "y"), given="x", candidate="y", gain=0.5),
        ReviewCase(sample_id="b", parts=(), labels=("x",), given="x", candidate=None, student={"x": 1.0}),
    ],
    "verdicts": [Verdict(id="a", content="c", verdict=None, given="x", at="2026-01-01T00:00:00Z", by="Ann")],
    "examples": [example(), example(images=(), messages=())],
    "examples without images": [example(images=()), example(images=())],
    "dropped": [Dropped(sample_id="a", stage="s", reason="image_missing", detail="“x”，\n")],
    "generations": [generation("a", label_logprobs={"x": -1.5}), generation("b", texts=())],
    "generations without probabilities": [generation("a"), generation("b")],
    "requests": [question(), question(constraint=FreeText())],
    "boxes": [Box(ref="退款", corners=(0, 1, 2.5, 3)), Box(image=1, corners=(0, 0, 1, 1))],
    "image refs": [image("a"), image("b")],
    "messages": [Message(role="user", content=""), Message(role="system", content="s")],
    "parts": [TextPart(text="1", turn=2)],
    "image parts": [ImagePart(image=image())],
    "recordings": [describe_video(4)],
    "video parts": [VideoPart(video=describe_video(2))],
    "votes": [Vote(label="x", reason="理由")],
    "pairs": [Pair(messages=(Message(role="user", content="?"),), rejected="no")],
    "constraints": [LabelAnswer(labels=("a",), reason_key=None, label_key="l", opening="", between=None, closing="")],
    "answers of measured students": [
        Scored(sample_id="a", variant="raw", seed=0, truth="x", label=None),
        Scored(sample_id="a", variant="all", seed=1, truth="x", label="y", p=0.5, reason="文", reasoned="x"),
    ],
    "trust": [
        Trusted(
            sample_id="a", label=None, expected=None, evidence=Evidence(), decision=PoolDecision.NO_ANSWER, why="w"
        ),
        Trusted(sample_id="b", label="x", expected=0.9, evidence=Evidence(), decision=PoolDecision.KEPT, why="w"),
    ],
    "intervals": [Interval(value=0.5, low=0.4, high=0.6)],
    "samplings": [Sampling(), Sampling(n=2, temperature=0.5, label_probabilities=True)],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_records_come_back_as_they_were(tmp_path: Path, rows: list[Record]) -> None:
    write_rows(tmp_path / "rows.parquet", rows)
    assert read_rows(tmp_path / "rows.parquet", type(rows[0])) == rows
    assert os.listdir(tmp_path) == ["rows.parquet"]


def test_every_kind_of_record_is_tried_above() -> None:
    boundary = {kind for kind in Record.__subclasses__() if kind.__module__ in ("tasks.media", "tasks.records")}
    assert boundary <= {type(rows[0]) for rows in ROWS.values()} | {FreeText}


def test_no_rows_are_a_readable_file_too(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [])
    assert pq.read_table(tmp_path / "rows.parquet").column_names == ["sample_id"]
    assert read_rows(tmp_path / "rows.parquet", Sample) == []


def test_any_reader_sees_a_nested_field_as_json(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [generation(texts=("漏",)), generation(label_logprobs={"漏": -1.0})])
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table["texts"].to_pylist() == ['["漏"]', '["回答"]']
    assert table["label_logprobs"].to_pylist() == ["null", '{"漏":-1.0}']
    assert set(table.column_names) == set(Generation.model_fields)


# --- the folder ----------------------------------------------------------------------------------------------

DROPPED = [Dropped(sample_id=id, stage="demo", reason=reason) for id, reason in (("c", "b_code"), ("d", "a_code"))]


def record(recipe: str = "r1") -> StageRecord:
    return StageRecord(stage="demo", recipe=recipe, read=0, kept=0, dropped=0, figures={"x": 0.5})


def write(folder: Path, recipe: str = "r1") -> StageRecord:
    return write_stage(folder, record(recipe), [prediction("a")], DROPPED, ["a", "c", "d"])


def test_a_stage_leaves_three_files_and_its_counts(tmp_path: Path) -> None:
    written = write(tmp_path / "stage")
    assert sorted(os.listdir(tmp_path / "stage")) == ["dropped.parquet", "kept.parquet", "record.json"]
    assert (written.read, written.kept, written.dropped) == (3, 1, 2)
    assert written.drops == {"a_code": 1, "b_code": 1}
    assert written.code and written.figures == {"x": 0.5}
    assert read_record(tmp_path / "stage") == find_finished_record(tmp_path / "stage", "r1") == written
    assert read_rows(tmp_path / "stage" / "dropped.parquet", Dropped) == DROPPED


def test_a_stage_some_of_whose_questions_failed_is_to_be_done_again(tmp_path: Path) -> None:
    def once(kept: str) -> StageRecord:
        failed = record().model_copy(update={"costs": Costs(asked=3, failed=1)})
        return write_stage(tmp_path, failed, [prediction(kept)], DROPPED, [kept, "c", "d"])

    first = once("a")
    assert find_finished_record(tmp_path, "r1") is None
    assert once("b").digest != first.digest


def test_another_recipe_is_to_be_done_again(tmp_path: Path) -> None:
    write(tmp_path)
    assert find_finished_record(tmp_path, "r2") is None
    assert find_finished_record(tmp_path / "elsewhere", "r1") is None


@pytest.mark.parametrize("name", ["kept.parquet", "dropped.parquet", "record.json"])
def test_a_stage_that_lacks_a_file_is_not_finished(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / name).unlink()
    assert find_finished_record(tmp_path, "r1") is None


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    write(tmp_path)
    data = (tmp_path / "record.json").read_bytes()
    for bad in (b"", data[:40], b"[]", b'{"stage": "demo"}', b"\xff"):
        (tmp_path / "record.json").write_bytes(bad)
        assert find_finished_record(tmp_path, "r1") is None


def test_a_stage_written_halfway_over_an_older_one_is_not_finished(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "dropped.parquet").unlink()
    (tmp_path / "dropped.parquet").mkdir()  # the second of the three files cannot be moved into place
    with pytest.raises(OSError):
        write(tmp_path, "r2")
    assert find_finished_record(tmp_path, "r1") is None and find_finished_record(tmp_path, "r2") is None


@pytest.mark.parametrize("ids", [["a", "c"], ["a", "c", "d", "e"], ["a", "c", "d", "d"], ["a", "b", "d"]])
def test_books_that_do_not_add_up_are_not_written(tmp_path: Path, ids: list[str]) -> None:
    with pytest.raises(ItemCountError, match="demo: kept \\+ dropped ≠ input"):
        write_stage(tmp_path / "stage", record(), [prediction("a")], DROPPED, ids)
    assert not (tmp_path / "stage").exists()


ids = st.lists(st.sampled_from("abcd"), max_size=5)


@given(ids, ids, ids)
def test_books_are_right_exactly_when_nothing_is_lost_or_made_up(
    kept: list[str], dropped: list[str], read: list[str]
) -> None:
    if Counter(kept + dropped) == Counter(read):
        check_item_counts("s", kept, dropped, read)
    else:
        with pytest.raises(ItemCountError):
            check_item_counts("s", kept, dropped, read)


# --- recipes and files ---------------------------------------------------------------------------------------


def test_a_recipe_changes_with_any_ingredient_and_not_with_their_order() -> None:
    spec = EngineSpec(model="m")
    one = hash_recipe(a=1, spec=spec, inputs={"x": "1", "y": "2"})
    assert one == hash_recipe(inputs={"y": "2", "x": "1"}, spec=EngineSpec(model="m"), a=1)
    others = [
        hash_recipe(a=2, spec=spec, inputs={"x": "1", "y": "2"}),
        hash_recipe(a=1, spec=spec.model_copy(update={"batch_size": 9}), inputs={"x": "1", "y": "2"}),
        hash_recipe(a=1, spec=spec, inputs={"x": "1", "y": "3"}),
        hash_recipe(b=1, spec=spec, inputs={"x": "1", "y": "2"}),
    ]
    assert len({one, *others}) == 5


def test_the_digest_follows_the_recipe_and_not_the_clock(tmp_path: Path) -> None:
    one, again, other = write(tmp_path / "1"), write(tmp_path / "2"), write(tmp_path / "3", "r2")
    assert one.digest == again.digest != other.digest
    assert one.finished_at != again.finished_at


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    write_bytes(target, b"old")
    with target.open("rb") as reader:
        write_bytes(target, b"new")
        assert reader.read() == b"old"
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["file"]


def test_stored_rows_can_be_gone_through_again_and_picked(tmp_path: Path) -> None:
    rows = [sample(f"s{i}") for i in range(12_000)]
    write_rows(tmp_path / "rows.parquet", rows)
    stored = StoredRows(tmp_path / "rows.parquet", Sample)
    assert len(stored) == 12_000
    assert list(stored) == list(stored) == rows
    wanted = {0, 4999, 5000, 11_999}
    assert list(stored.at(wanted)) == [(i, rows[i]) for i in sorted(wanted)]
    assert list(stored.at(set())) == []
