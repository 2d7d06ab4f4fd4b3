import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.dataset import diff as version_diff
from tasks.dataset import versions
from tasks.dataset.diff import Change, ChangeCounts, ChangeKind, compare_snapshots, open_change_file
from tasks.dataset.versions import find_version, open_snapshot, read_versions, snapshot_path
from tasks.errors import ManifestError
from tasks.records import Example, Message, Origin, Subset
from tasks.storage.rows import write_rows
from tests.tasks.dataset.making import digest_set, record_version
from tests.tasks.making import draw_numbered_video, image


def example(id: str, label: str = "申请退款", reason: str = "", shown: str = "", **fields: Any) -> Example:
    values: dict[str, Any] = {"origin": Origin.GIVEN, "why": "given label", "source": "train.json", "task": "dialogue"}
    messages = (
        Message(role="user", content=f"<image>{shown or id}"),
        Message(role="assistant", content=json.dumps({"理由": reason, "标签": label}, ensure_ascii=False)),
    )
    return Example(sample_id=id, messages=messages, images=(image(id),), label=label, reason=reason, **values | fields)


ONE = [example(str(n), reason="看到退款") for n in range(6)]
SECOND = {
    1: example("1", "查询物流", "问包裹", origin=Origin.CORRECTION, why="teacher and students agree"),
    2: example("2", reason="要求退钱"),
    3: example("3", reason="看到退款", subset=Subset.VALIDATION),
    4: example("4", reason="看到退款", shown="别的话"),
}
TWO = [SECOND.get(n, ONE[n]) for n in (5, 4, 3, 2, 1)] + [example("new", origin=Origin.PSEUDO, why="p=0.98")]


def compare(folder: Path, before: Iterable[Example], after: Iterable[Example]) -> list[Change]:
    sides: list[str] = []
    for name, examples in (("a", before), ("b", after)):
        sides.append(str(folder / f"{name}.parquet"))
        write_rows(Path(sides[-1]), list(examples))
    return list(compare_snapshots(*map(open_snapshot, sides)))


def test_other_frames_of_a_recording_are_a_change(tmp_path: Path) -> None:
    clip = draw_numbered_video(tmp_path)
    fewer = clip.model_copy(update={"frames": clip.frames[:2], "times": clip.times[:2]})
    slower = clip.model_copy(update={"times": tuple(2 * time for time in clip.times)})
    for after in (fewer, slower):
        (change,) = compare(tmp_path, [example("1", videos=(clip,))], [example("1", videos=(after,))])
        assert change.kinds == (ChangeKind.REWORDED,)
    assert not compare(tmp_path, [example("1", videos=(clip,))], [example("1", videos=(clip,))])


# --- the digest ----------------------------------------------------------------------------------------------


@given(st.permutations(ONE))
def test_the_order_of_examples_does_not_matter(shuffled: list[Example]) -> None:
    assert digest_set(shuffled) == digest_set(ONE)


@pytest.mark.parametrize(
    "change",
    [
        {"sample_id": "x"},
        {"label": "查询物流"},
        {"subset": Subset.VALIDATION},
        {"images": (image("other"),)},
        {"images": (image("0"), image("0"))},
        {"messages": (Message(role="user", content="<image>0"),)},
        {"messages": (Message(role="system", content="<image>0"), *ONE[0].messages[1:])},
    ],
)
def test_any_change_of_the_training_data_makes_another_version(change: dict[str, Any]) -> None:
    other = ONE[0].model_copy(update=change)
    assert digest_set([other, *ONE[1:]]) != digest_set(ONE)


def test_a_moved_file_or_another_explanation_is_the_same_version() -> None:
    moved = ONE[0].model_copy(update={"images": (image("0", "/elsewhere/0.png"),), "why": "as given", "source": "b"})
    assert digest_set([moved, *ONE[1:]]) == digest_set(ONE)


def test_a_row_counts_as_often_as_it_occurs() -> None:
    versions = {digest_set(ONE * times) for times in (0, 1, 2, 3)}
    assert len(versions) == 4


# --- the log -------------------------------------------------------------------------------------------------


def test_each_emission_has_its_digest_parent_and_snapshot(tmp_path: Path) -> None:
    first = record_version(tmp_path, "recipe-1", ONE)
    second = record_version(tmp_path, "recipe-2", TWO)
    assert (first.parent, second.parent) == (None, first.version)
    assert (first.version, second.version) == (digest_set(ONE), digest_set(TWO))
    assert second.origins == {Origin.CORRECTION: 1, Origin.GIVEN: 4, Origin.PSEUDO: 1}
    assert (second.rows, second.recipe) == (6, "recipe-2")
    assert read_versions(tmp_path) == [first, second]
    kept = pd.read_parquet(snapshot_path(tmp_path, first))
    assert list(kept.sample_id) == [e.sample_id for e in ONE]
    assert sorted(p.name for p in (tmp_path / "versions").iterdir()) == sorted(
        [f"{first.short}.parquet", f"{second.short}.parquet", "versions.jsonl"]
    )


def test_the_same_set_is_no_new_version_but_a_return_to_an_older_set_is(tmp_path: Path) -> None:
    first = record_version(tmp_path, "r", ONE)
    assert record_version(tmp_path, "r", reversed(ONE)) == first
    record_version(tmp_path, "r", TWO)
    back = record_version(tmp_path, "r", ONE)
    assert [v.version for v in read_versions(tmp_path)] == [first.version, digest_set(TWO), first.version]
    assert back.parent == digest_set(TWO)
    assert find_version(tmp_path, first.short).version == first.version


def test_an_emission_that_fails_leaves_no_version(tmp_path: Path) -> None:
    write_rows(tmp_path / "kept.parquet", ONE)
    torn = (tmp_path / "kept.parquet").read_bytes()[:-100]
    (tmp_path / "kept.parquet").write_bytes(torn)
    with pytest.raises(pa.ArrowInvalid):
        versions.record_version(tmp_path, tmp_path / "kept.parquet", "r")
    assert not read_versions(tmp_path) and not list((tmp_path / "versions").iterdir())


def test_an_empty_set_is_a_version_like_others(tmp_path: Path) -> None:
    empty = record_version(tmp_path, "r", [])
    full = record_version(tmp_path, "r", ONE)
    assert empty.rows == 0
    found = list(compare_snapshots(*(open_snapshot(v.short, tmp_path) for v in (empty, full))))
    assert [c.kinds for c in found] == [(ChangeKind.ADDED,)] * len(ONE)
    assert open_snapshot(empty.short, tmp_path).version == empty.version


def test_a_killed_writer_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    first = record_version(tmp_path, "r", ONE)
    code = (
        "import os, pathlib, signal, sys; from tasks.dataset import versions; "
        "from tests.tasks.dataset.making import record_version; from tests.tasks.dataset.test_versions import TWO; "
        "versions.write_json_lines = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "record_version(pathlib.Path(sys.argv[1]), 'r', TWO)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert read_versions(tmp_path) == [first]
    assert record_version(tmp_path, "r", TWO).parent == first.version


def test_an_invalid_log_and_an_unknown_digest_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="none; run emit first"):
        find_version(tmp_path, "abcd")
    first = record_version(tmp_path, "r", ONE)
    second = record_version(tmp_path, "r", TWO)
    with pytest.raises(ManifestError, match=f"no version begins with `zz`; there are: {first.short}, {second.short}"):
        find_version(tmp_path, "zz")
    with pytest.raises(ManifestError, match="2 versions begin with ``"):
        find_version(tmp_path, "")
    log = tmp_path / "versions" / "versions.jsonl"
    log.write_bytes(log.read_bytes() + b"{}\n")
    with pytest.raises(ManifestError, match="line 3"):
        read_versions(tmp_path)


# --- what differs --------------------------------------------------------------------------------------------


def test_every_kind_of_change_is_found_and_nothing_else(tmp_path: Path) -> None:
    found = compare(tmp_path, ONE, TWO)
    assert [(c.id, *c.kinds) for c in found] == [
        ("0", ChangeKind.REMOVED),
        ("1", ChangeKind.RELABELLED),
        ("2", ChangeKind.REREASONED),
        ("3", ChangeKind.MOVED),
        ("4", ChangeKind.REWORDED),
        ("new", ChangeKind.ADDED),
    ]
    relabelled = found[1]
    assert relabelled.before and relabelled.after
    assert (relabelled.before.label, relabelled.after.label) == ("申请退款", "查询物流")
    assert (relabelled.before.why, relabelled.after.why) == ("given label", "teacher and students agree")
    assert (relabelled.before.origin, relabelled.after.origin) == ("given", "correction")
    assert (found[0].after, found[-1].before) == (None, None)
    counts = ChangeCounts()
    for change in found:
        counts.add(change)
    assert counts.items == 6 and counts.relabelled == {("申请退款", "查询物流"): 1}


def test_one_item_may_change_in_two_ways(tmp_path: Path) -> None:
    moved = ONE[0].model_copy(update={"label": "查询物流", "reason": "别的", "subset": Subset.VALIDATION})
    assert [c.kinds for c in compare(tmp_path, ONE, [moved, *ONE[1:]])] == [(ChangeKind.RELABELLED, ChangeKind.MOVED)]


def test_an_id_that_two_manifests_use_is_matched_in_each(tmp_path: Path) -> None:
    def make_both(label: str) -> list[Example]:
        pool = example("1", label, source="pool.json", origin=Origin.PSEUDO)
        return [example("1", source="labelled.json"), pool, example("2")]

    found = compare(tmp_path, make_both("查询物流"), reversed(make_both("反馈破损")))
    assert [(c.id, c.kinds, c.before and c.before.source) for c in found] == [
        ("1", (ChangeKind.RELABELLED,), "pool.json")
    ]
    gone = compare(tmp_path, make_both("查询物流"), make_both("查询物流")[::2])
    assert [(c.id, c.kinds, c.before and c.before.source) for c in gone] == [("1", (ChangeKind.REMOVED,), "pool.json")]


def test_an_item_does_not_become_that_of_another_manifest_with_its_id(tmp_path: Path) -> None:
    train, pool = example("1", source="train.json"), example("1", "查询物流", source="pool.json")
    others = [example("2", source="train.json"), example("2", "查询物流", source="pool.json")]
    assert [(c.id, *c.kinds) for c in compare(tmp_path, [train, *others], [train, pool, *others])] == [
        ("1", ChangeKind.ADDED)
    ]
    assert [(c.id, *c.kinds) for c in compare(tmp_path, [train, *others], [pool, *others])] == [
        ("1", ChangeKind.REMOVED),
        ("1", ChangeKind.ADDED),
    ]


@pytest.mark.parametrize("place", ["/new/train.json", "/old/train_v2.json"])
def test_items_of_a_moved_or_renamed_manifest_are_still_the_same(tmp_path: Path, place: str) -> None:
    before = [example(i, source="/old/train.json") for i in "12"]
    assert compare(tmp_path, before, [example(i, source=place) for i in "12"]) == []


@given(before=st.lists(st.integers(0, 9), unique=True), after=st.lists(st.integers(0, 9), unique=True), data=st.data())
def test_it_equals_a_comparison_item_by_item(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], after: list[int], data: st.DataObject
) -> None:
    labels = {n: data.draw(st.sampled_from(["申请退款", "查询物流"])) for n in after}
    found = compare(
        tmp_path_factory.mktemp("diff"),
        [example(str(n)) for n in before],
        [example(str(n), labels[n]) for n in after],
    )
    expected = {str(n): ChangeKind.REMOVED for n in before if n not in after}
    expected |= {str(n): ChangeKind.ADDED for n in after if n not in before}
    expected |= {str(n): ChangeKind.RELABELLED for n in before if labels.get(n) == "查询物流"}
    assert {c.id: c.kinds for c in found} == {id: (kind,) for id, kind in expected.items()}


def test_snapshots_of_several_row_groups_and_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_diff, "_SLICE", 1_000)
    many = [example(str(n), why=f"p={n % 7}") for n in range(12_000)]
    record_version(tmp_path, "r", many)
    many[6_001] = example("6001", "查询物流", why="p=x")
    many.append(example("last"))
    second = record_version(tmp_path, "r", reversed(many))
    sides = [open_snapshot(v.short, tmp_path) for v in read_versions(tmp_path)]
    found = [(c.id, c.kinds, c.before and c.before.why, c.after and c.after.why) for c in compare_snapshots(*sides)]
    assert found == [
        ("6001", (ChangeKind.RELABELLED,), "p=2", "p=x"),
        ("last", (ChangeKind.ADDED,), None, "given label"),
    ]
    assert sides[1].version == second.version


# --- the sides, and what is written --------------------------------------------------------------------------


def test_a_version_can_be_named_in_several_ways(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first, second = record_version(run, "r", ONE), record_version(run, "r", TWO)
    (run / "emit").mkdir()
    write_rows(run / "emit" / "kept.parquet", TWO)
    snapshot = str(snapshot_path(run, first))
    named = {n: open_snapshot(n, run).version for n in (first.short[:6], first.version, snapshot)}
    assert set(named.values()) == {first.version}
    latest = (str(run), str(run / "versions"), str(run / "emit"), str(run / "emit" / "kept.parquet"))
    assert {open_snapshot(n).version for n in latest} == {second.version}
    moved = (run / "versions").rename(tmp_path / "away")
    assert open_snapshot(str(run)).version == second.version and moved.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("deadbeef", "--in OUTPUT"), (".", "neither versions/ nor emit"), ("x.parquet", "cannot be read"),
     ("other.parquet", "contains no examples")],
)  # fmt: skip
def test_an_unknown_name_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.parquet").write_bytes(b"PAR1")
    pd.DataFrame({"id": [1]}).to_parquet("other.parquet")
    with pytest.raises(ManifestError, match=words):
        open_snapshot(name)


def test_an_emitted_set_with_broken_messages_is_an_error(tmp_path: Path) -> None:
    write_rows(tmp_path / "kept.parquet", [example("a")])
    whole = pq.read_table(tmp_path / "kept.parquet")
    for column, text in (("messages", '[{"role"'), ("messages", "[{}]"), ("messages", "[3]"), ("images", "[7]")):
        table = whole.set_column(whole.schema.get_field_index(column), column, pa.array([text]))
        pq.write_table(table, tmp_path / "kept.parquet")
        with pytest.raises(ManifestError, match=r"kept\.parquet: cannot be read as Parquet: .*; run emit again"):
            open_snapshot(str(tmp_path))


def test_a_small_file_that_unpacks_to_more_than_the_memory_is_an_error(tmp_path: Path) -> None:
    rows = pa.table({"sample_id": pa.nulls(10_000_000)})
    with pq.ParquetWriter(tmp_path / "x.parquet", rows.schema) as file:
        for _ in range(18):
            file.write_table(rows, row_group_size=len(rows))
    assert (tmp_path / "x.parquet").stat().st_size < 1 << 20
    with pytest.raises(ManifestError, match=r"x\.parquet: comparing this version would need 16 GiB of memory"):
        open_snapshot(str(tmp_path / "x.parquet"))


def test_changes_are_written_as_json_lines_and_csv(tmp_path: Path) -> None:
    found = compare(tmp_path, ONE, TWO)
    for path in (tmp_path / "d.jsonl", tmp_path / "d.csv"):
        with open_change_file(path) as write:
            for change in found:
                write(change)
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [(row["id"], row["changes"]) for row in lines] == [(c.id, list(c.kinds)) for c in found]
    assert lines[1]["before"]["label"] == "申请退款" and lines[1]["after"]["why"] == "teacher and students agree"
    assert lines[0]["after"] is None
    table = pd.read_csv(tmp_path / "d.csv", dtype=str, keep_default_na=False)
    assert list(table.changes) == ["+".join(c.kinds) for c in found]
    assert table.label_before[1] == "申请退款" and table.label_after[1] == "查询物流" and table.label_after[0] == ""


def test_an_unfinished_file_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_change_file(tmp_path / "d.csv"):
        raise RuntimeError
    with pytest.raises(ManifestError, match=r"jsonl or \.csv"), open_change_file(tmp_path / "d.xlsx"):
        pass
    assert not list(tmp_path.iterdir())
