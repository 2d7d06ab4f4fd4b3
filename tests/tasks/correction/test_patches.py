import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.correction.patches import Change, apply_patch, changes, read_patch, revert_patch, undo_path, write_patch
from tasks.errors import ManifestError
from tasks.items.manifests import read_items
from tasks.records import Action
from tests.tasks.making import correction

LABELS = ("申请退款", "查询物流", 'a,"b"', "no label's\nfriend", "X")
Row = dict[str, Any]


def change(id: str = "1", label: str | None = "查询物流", given: str = "申请退款", **fields: Any) -> Change:
    action = Action.DROP if label is None else Action.RELABEL
    return Change(id=id, given=given, label=label, action=action, reviewed=False, why="because", **fields)


# --- any manifest, any patch ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A manifest as someone might have written it, a patch of it, and the rows that must come out of it."""

    name: str
    data: bytes
    patch: list[Change]
    rows: list[Row]
    expected: list[Row]


spaces = st.sampled_from(["", " ", "\n", "\r\n", "\n\n  "])
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["a,b", '"', "x\ny", "\u2028"]
)
extras = st.none() | st.integers() | texts | st.lists(st.floats(allow_nan=False) | texts, max_size=2)


@st.composite
def rows_and_patch(draw: st.DrawFn, extra: st.SearchStrategy[Any]) -> tuple[list[Row], list[Change], list[Row]]:
    count = draw(st.integers(1, 7))
    fates = draw(st.lists(st.sampled_from(["keep", "drop", "drop", *LABELS]), min_size=count, max_size=count))
    rows: list[Row] = []
    patch: list[Change] = []
    expected: list[Row] = []
    for number, fate in enumerate(fates):
        pad = draw(st.sampled_from(["{}", " {}", "{}\n"]))
        label = draw(st.sampled_from(LABELS))
        row = {"id": f"i{number}", "instruction": draw(texts), "output": pad.format(label), "extra": draw(extra)}
        rows.append(row)
        if fate == "drop":
            patch.append(change(row["id"], None, label))
            continue
        if fate not in ("keep", label):
            patch.append(change(row["id"], fate, label))
            row = row | {"output": pad.format(fate)}
        expected.append(row)
    return rows, draw(st.permutations(patch)), expected


def as_object(draw: st.DrawFn, row: Row, space: st.SearchStrategy[str]) -> str:
    """One object with its fields in any order, any spelling, and any space between them."""
    a, b, c, d = draw(st.tuples(space, space, space, space))
    ascii_only, twice = draw(st.tuples(st.booleans(), st.booleans()))
    fields = draw(st.permutations(list(row.items())))
    if twice:
        fields.insert(0, ("output", "the last one counts"))
    spelled = [[json.dumps(part, ensure_ascii=ascii_only) for part in field] for field in fields]
    return "{" + ",".join(f"{a}{name}{b}:{c}{value}{d}" for name, value in spelled) + "}"


@st.composite
def json_cases(draw: st.DrawFn) -> Case:
    rows, patch, expected = draw(rows_and_patch(extras))
    objects = [as_object(draw, row, spaces) for row in rows]
    between = ",".join(f"{draw(spaces)}{one}{draw(spaces)}" for one in objects)
    bom = draw(st.sampled_from(["", "\ufeff"]))
    text = f"{bom}{draw(spaces)}[{between}]{draw(spaces)}"
    if len(objects) == 1 and draw(st.booleans()):
        text = bom + draw(spaces) + objects[0] + draw(spaces)
    return Case("m.json", text.encode(), patch, rows, expected)


@st.composite
def jsonl_cases(draw: st.DrawFn) -> Case:
    rows, patch, expected = draw(rows_and_patch(extras))
    flat = st.sampled_from(["", " ", "\t"])
    lines = [as_object(draw, row, flat) for row in rows]
    for bad in draw(st.lists(st.sampled_from(["", " ", "{", "[]"]), max_size=2)):
        lines.insert(draw(st.integers(1, len(lines))), bad)
    data = draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n", "\n \n"]))
    name = draw(st.sampled_from(["m.jsonl", "m.ndjson", "m.JSONL"]))
    return Case(name, draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + data.encode(), patch, rows, expected)


@st.composite
def csv_cases(draw: st.DrawFn) -> Case:
    rows, patch, expected = draw(rows_and_patch(texts))
    end = st.sampled_from(["\n", "\r\n", "\r", "\r\n\r\n"])
    names = draw(st.permutations(["id", "instruction", "output", "extra"]))

    def record(cells: list[str]) -> str:
        out = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
        csv.writer(out, quoting=quoting).writerow(cells)
        return out.getvalue().removesuffix("\r\n")

    text = "".join(record([row[n] for n in names]) + draw(end) for row in ({n: n for n in names}, *rows))
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return Case("m.csv", bom + (text.rstrip("\r\n") if draw(st.booleans()) else text).encode(), patch, rows, expected)


@st.composite
def parquet_cases(draw: st.DrawFn) -> Case:
    rows, patch, expected = draw(rows_and_patch(st.none() | st.lists(st.integers(0, 255), max_size=2)))
    kind = draw(st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]))
    schema = pa.schema(
        [("id", pa.string()), ("instruction", pa.string()), ("output", kind), ("extra", pa.list_(pa.uint8()))],
        metadata={"made": "by hand"},
    )
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, row_group_size=draw(st.integers(1, 8)))
    return Case("m.parquet", out.getvalue(), patch, rows, expected)


def rows_of(path: Path) -> list[Row]:
    """The rows that have all fields, read without any of the code under test."""
    data = path.read_bytes()
    match path.suffix.lower():
        case ".json":
            content = json.loads(data.decode("utf-8-sig").strip() or "[]")
            return content if isinstance(content, list) else [content]
        case ".csv":
            return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        case ".parquet":
            return pq.read_table(path).to_pylist()
        case _:
            lines = data.decode("utf-8-sig").split("\n")
            return [json.loads(line) for line in lines if line.strip() not in ("", "{", "[]")]


def written(folder: Path, case: Case) -> tuple[Path, Path]:
    (folder / case.name).write_bytes(case.data)
    write_patch(case.patch, folder / "corrections.jsonl")
    return folder / "corrections.jsonl", folder / case.name


@pytest.mark.parametrize("cases", [json_cases, jsonl_cases, csv_cases, parquet_cases])
def test_what_is_applied_is_just_the_patch_and_reverting_gives_the_original(cases: Callable[[], Any]) -> None:
    @settings(max_examples=80, deadline=None)
    @given(cases())
    def check(case: Case) -> None:
        with TemporaryDirectory() as name:
            folder = Path(name)
            patch, manifest = written(folder, case)
            copy, back = folder / f"copy{manifest.suffix}", folder / f"back{manifest.suffix}"
            assert rows_of(manifest) == case.rows
            done = apply_patch(patch, manifest, copy)
            assert rows_of(copy) == case.expected
            assert done.dropped == len(case.rows) - len(case.expected)
            assert done.relabelled == len(case.patch) - done.dropped
            assert manifest.read_bytes() == case.data
            assert revert_patch(patch, copy, back) == type(done)(back, done.relabelled, done.dropped)
            if manifest.suffix != ".parquet":
                assert back.read_bytes() == case.data
            else:
                there, was = pq.read_table(back), pq.read_table(manifest)
                assert there.schema.equals(was.schema, check_metadata=True)
                assert there.to_pylist() == was.to_pylist()
            if not done.dropped:  # then the labels alone say what was there
                undo_path(copy).unlink()
                revert_patch(patch, copy, back)
                assert rows_of(back) == case.rows

    check()


# --- what stays as it is -------------------------------------------------------------------------------------

TWO = (
    '[\n  {"id": 1, "instruction": "x", "output": "申请退款", "n": 1.50},\n'
    '  {"id": "2", "output" :"\\u7533请退款 "}\n]\n'
)


def put(folder: Path, text: str | bytes, *patch: Change, name: str = "m.json") -> tuple[Path, Path]:
    data = text.encode() if isinstance(text, str) else text
    return written(folder, Case(name, data, list(patch), [], []))


def test_an_applied_json_file_differs_in_the_label_only(tmp_path: Path) -> None:
    patch, manifest = put(tmp_path, TWO, change("1"), change("2"))
    done = apply_patch(patch, manifest, tmp_path / "new" / "copy.json")
    assert (done.relabelled, done.dropped) == (2, 0)
    assert done.out.read_text() == TWO.replace("申请退款", "查询物流").replace("\\u7533请退款", "查询物流")
    revert_patch(patch, done.out, tmp_path / "back.json")
    assert (tmp_path / "back.json").read_text() == TWO


def test_an_ascii_file_stays_ascii(tmp_path: Path) -> None:
    patch, manifest = put(tmp_path, '{"id": "1", "output": "\\u7533\\u8bf7\\u9000\\u6b3e"}\n', change(), name="m.jsonl")
    assert json.loads(apply_patch(patch, manifest, tmp_path / "c.jsonl").out.read_bytes())["output"] == "查询物流"
    assert (tmp_path / "c.jsonl").read_bytes().isascii()


def test_rows_that_are_not_utf8_are_carried_along(tmp_path: Path) -> None:
    data = "id,instruction,output,n\n1,x,申请退款,".encode() + b"\xc7\xeb\n2,\xc7,y,z\n"
    patch, manifest = put(tmp_path, data, change(label=None), name="m.csv")
    apply_patch(patch, manifest, tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_bytes() == b"id,instruction,output,n\n2,\xc7,y,z\n"
    revert_patch(patch, tmp_path / "c.csv", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == data


def test_parquet_cells_that_are_not_utf8_are_carried_along(tmp_path: Path) -> None:
    raw = pa.array([b"\xc7\xeb", b"x", b"\xc7"]).view(pa.string())
    table = pa.table({"id": [1, 2, 3], "instruction": raw, "output": ["申请退款"] * 3})
    pq.write_table(table, tmp_path / "m.parquet")
    write_patch([change("1"), change("3", None)], tmp_path / "p.jsonl")
    apply_patch(tmp_path / "p.jsonl", tmp_path / "m.parquet", tmp_path / "c.parquet")
    copy = pq.read_table(tmp_path / "c.parquet")
    assert copy["output"].to_pylist() == ["查询物流", "申请退款"] and copy["id"].to_pylist() == [1, 2]
    revert_patch(tmp_path / "p.jsonl", tmp_path / "c.parquet", tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "b.parquet").equals(table)


@pytest.mark.parametrize("gone", ["a", "b", "c", "ab", "ac", "bc", "abc"])
def test_an_array_stays_one_whatever_is_removed(tmp_path: Path, gone: str) -> None:
    text = "[ " + "\n , ".join(f'{{"id": "{i}", "output": "申请退款"}}' for i in "abc") + " ]"
    patch, manifest = put(tmp_path, text, *(change(i, None) for i in gone))
    copy = apply_patch(patch, manifest, tmp_path / "copy.json").out
    assert "".join(row["id"] for row in rows_of(copy)) == "".join(i for i in "abc" if i not in gone)
    revert_patch(patch, copy, tmp_path / "back.json")
    assert (tmp_path / "back.json").read_text() == text


# --- all or nothing ------------------------------------------------------------------------------------------

LINES = "\n".join(json.dumps({"id": i, "instruction": "x", "output": "申请退款"}) for i in ("1", "2", "2")) + "\n"


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (change("9"), "item 9: there is none: the patch is of another manifest"),
        (change("9", None), "item 9: there is none: already applied, or the patch is of another manifest"),
        (change("2"), "line 3: item 2 again, after line 2; remove one"),
        (change(given="查询物流", label="申请退款"), "line 1: item 1 is `申请退款`: already applied"),
        (change(given="X", label="Y"), "line 1: item 1 is `申请退款`, the patch is of a manifest where it is `X`"),
    ],
)
def test_a_patch_that_does_not_fit_writes_nothing(tmp_path: Path, patch: Change, says: str) -> None:
    files = put(tmp_path, LINES, patch, change("8"), name="m.jsonl")
    with pytest.raises(ManifestError) as error:
        apply_patch(*files, tmp_path / "copy.jsonl")
    assert f"{files[1]}, {says}" in str(error.value) and "(and 1 more items)" in str(error.value)
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_label_is_never_looked_for_inside_other_text(tmp_path: Path) -> None:
    files = put(tmp_path, '[{"id": "1", "instruction": "x", "output": "{\\"intent\\": \\"申请退款\\"}"}]', change())
    with pytest.raises(ManifestError, match=r"item 1 is `\{"):
        apply_patch(*files, tmp_path / "copy.json")


@pytest.mark.parametrize("output", ["null", "3", '""', "[]"])
def test_an_item_without_a_label_does_not_fit(tmp_path: Path, output: str) -> None:
    files = put(tmp_path, f'[{{"id": "1", "instruction": "x", "output": {output}}}]', change())
    with pytest.raises(ManifestError, match="item 1 is ``, the patch"):
        apply_patch(*files, tmp_path / "copy.json")


def test_reverting_twice_is_refused(tmp_path: Path) -> None:
    patch, manifest = put(tmp_path, TWO, change("1"))
    apply_patch(patch, manifest, tmp_path / "copy.json")
    revert_patch(patch, tmp_path / "copy.json", tmp_path / "back.json")
    with pytest.raises(ManifestError, match=r"back\.json, item 1: item 1 is `申请退款`: not applied here, or already"):
        revert_patch(patch, tmp_path / "back.json", tmp_path / "again.json")
    assert not (tmp_path / "again.json").exists()


def test_a_copy_that_was_changed_since_gets_its_labels_back(tmp_path: Path) -> None:
    patch, manifest = put(tmp_path, LINES.replace('"2"', '"3"', 1), change("1"), name="m.jsonl")
    copy = apply_patch(patch, manifest, tmp_path / "copy.jsonl").out
    copy.write_text(copy.read_text().replace("x", "y") + '{"id": "new"}\n')
    revert_patch(patch, copy, tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_text() == manifest.read_text().replace("x", "y") + '{"id": "new"}\n'


def test_removed_items_come_back_into_the_unchanged_copy_only(tmp_path: Path) -> None:
    patch, manifest = put(tmp_path, TWO, change("1", None), change("2"))
    copy = apply_patch(patch, manifest, tmp_path / "copy.json").out
    moved = undo_path(copy).rename(tmp_path / "kept.jsonl")
    back, data = tmp_path / "back.json", copy.read_text()
    with pytest.raises(ManifestError, match=r"copy\.json\.undo\.jsonl: no such file"):
        revert_patch(patch, copy, back)
    with pytest.raises(ManifestError, match=r"corrections\.jsonl: is not what apply leaves"):
        revert_patch(patch, copy, back, patch)
    copy.write_text(data + "\n")
    with pytest.raises(ManifestError, match=r"copy\.json: was changed after"):
        revert_patch(patch, copy, back, moved)
    with pytest.raises(ManifestError, match=r"item 1 is there, though the patch removes it: not applied here"):
        revert_patch(patch, manifest, back, moved)
    assert not back.exists()
    copy.write_text(data)
    revert_patch(patch, copy, back, moved)
    assert back.read_text() == TWO


def test_an_undo_file_with_a_fault_in_its_text_is_not_believed(tmp_path: Path) -> None:
    patch, manifest = put(tmp_path, TWO, change("1", None))
    copy = apply_patch(patch, manifest, tmp_path / "copy.json").out
    undo = undo_path(copy)
    for damage in (('"text"', '"txet"'), ("1", "2"), ('"at": ', '"at": 1')):
        whole = undo.read_text(encoding="utf-8")
        head, lines = whole.split("\n", 1)
        undo.write_text(head + "\n" + lines.replace(*damage), encoding="utf-8")
        with pytest.raises(ManifestError, match=r"copy\.json\.undo\.jsonl: is not what apply leaves"):
            revert_patch(patch, copy, tmp_path / "back.json")
        undo.write_text(whole, encoding="utf-8")
    assert not (tmp_path / "back.json").exists()


def test_of_two_patches_the_last_is_reverted_first(tmp_path: Path) -> None:
    first, manifest = put(tmp_path, TWO, change("1", None))
    one = apply_patch(first, manifest, tmp_path / "one.json").out
    second = tmp_path / "second.jsonl"
    write_patch([change("2", "X")], second)
    two = apply_patch(second, one, tmp_path / "two.json").out
    with pytest.raises(ManifestError, match=r"two\.json\.undo\.jsonl: is of another patch; revert that one first"):
        revert_patch(first, two, tmp_path / "back.json")
    revert_patch(second, two, tmp_path / "back.json")
    assert (tmp_path / "back.json").read_bytes() == one.read_bytes()
    revert_patch(first, tmp_path / "back.json", tmp_path / "all.json", undo_path(one))
    assert (tmp_path / "all.json").read_text() == TWO


@pytest.mark.parametrize("out", ["m.json", "sub/../m.json", "corrections.jsonl", "m.csv"])
def test_the_copy_is_another_file_of_the_same_format(tmp_path: Path, out: str) -> None:
    files = put(tmp_path, TWO, change("1"))
    (tmp_path / "sub").mkdir()
    for command in (apply_patch, revert_patch):
        with pytest.raises(ManifestError, match=r"itself; write to another file|end in \.json"):
            command(*files, tmp_path / out)
    assert files[1].read_text() == TWO and read_patch(files[0]) == [change("1")]


# --- the patch file ------------------------------------------------------------------------------------------


def test_changes_are_the_relabelled_and_the_dropped(tmp_path: Path) -> None:
    made = [
        correction("a"),
        correction("b", action=Action.RELABEL, label="查询物流", p_given=0.1, p_candidate=0.8, p_neither=0.1),
        correction("c", action=Action.REVIEW),
        correction("d", action=Action.DROP, label=None, reviewed=True, verdict="neither"),
    ]
    patch = changes(made)
    assert [(c.id, c.label, c.reviewed, c.verdict, c.p_candidate) for c in patch] == [
        ("b", "查询物流", False, None, 0.8),
        ("d", None, True, "neither", made[3].p_candidate),
    ]
    write_patch(patch, tmp_path / "p.jsonl")
    assert read_patch(tmp_path / "p.jsonl") == patch
    assert [json.loads(line)["given"] for line in (tmp_path / "p.jsonl").open()] == ["申请退款"] * 2


def test_a_patch_without_changes_copies(tmp_path: Path) -> None:
    patch, manifest = put(tmp_path, TWO)
    assert read_patch(patch) == []
    assert apply_patch(patch, manifest, tmp_path / "copy.json").out.read_text() == TWO


@pytest.mark.parametrize(
    "fields",
    [{"label": None}, {"label": "申请退款"}, {"label": " X"}, {"label": ""}, {"action": "drop"}, {"action": "keep"}],
)
def test_a_change_that_makes_no_sense_is_no_change(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Change.model_validate(change().model_dump() | fields)


GOOD = change().model_dump_json()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{GOOD}\n\nnothing", "line 3: is no change (Invalid JSON"),
        (GOOD.replace('"why"', '"because"'), "line 1: is no change (why: Field required)"),
        (f"{GOOD}\n{GOOD}", "line 2: changes item 1 again"),
        (None, "a patch can't be read: No such file"),
    ],
)
def test_a_bad_patch_names_the_line(tmp_path: Path, text: str | None, says: str) -> None:
    _, manifest = put(tmp_path, TWO)
    path = tmp_path / "p.jsonl"
    if text is not None:
        path.write_text(text)
    for command in (apply_patch, revert_patch):
        with pytest.raises(ManifestError) as error:
            command(path, manifest, tmp_path / "copy.json")
        assert str(path) in str(error.value) and says in str(error.value)
    assert not (tmp_path / "copy.json").exists()


def test_the_copy_can_be_read_again(tmp_path: Path) -> None:
    patch, manifest = put(tmp_path, TWO, change("1", None))
    items = read_items(apply_patch(patch, manifest, tmp_path / "copy.json").out)
    assert [(item.fields or {})["id"] for item in items] == ["2"]
