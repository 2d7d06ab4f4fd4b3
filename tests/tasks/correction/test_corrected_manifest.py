import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.correction.corrected_manifest import check_not_own_copy, write_corrected
from tasks.errors import ConfigError, ManifestError
from tasks.packs.columns import DEFAULT_COLUMNS, Columns
from tasks.records import Action
from tests.tasks.making import correction, sample

LABELS = ("申请退款", "查询物流", 'a,"b"', "no label's\nfriend", "X")
Row = dict[str, Any]
Changes = Mapping[str, tuple[str, str | None]]
"""Item id → the label it was given, and the one it gets; None where it is dropped."""


def corrected(manifest: Path, changes: Changes, columns: Columns = DEFAULT_COLUMNS) -> list[str]:
    """Write the corrected copy of one manifest beside it, under `correction`; returns the ids that were left alone."""
    source = str(manifest.resolve())
    samples = [sample(i, source=source, given=was) for i, (was, _) in changes.items()]
    decided = [
        correction(i, given=was, label=now, action=Action.DROP if now is None else Action.RELABEL)
        for i, (was, now) in changes.items()
    ]
    return write_corrected(manifest, columns, samples, decided, manifest.parent / "correction")


def copy_of(manifest: Path) -> Path:
    return manifest.parent / "correction" / "corrected" / manifest.name


# --- any manifest, any changes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A manifest as someone might have written it, changes of its labels, and the rows that must come out of it."""

    name: str
    data: bytes
    changes: Changes
    rows: list[Row]
    expected: list[Row]


spaces = st.sampled_from(["", " ", "\n", "\r\n", "\n\n  "])
texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["a,b", '"', "x\ny", "\u2028"]
)
extras = st.none() | st.integers() | texts | st.lists(st.floats(allow_nan=False) | texts, max_size=2)


@st.composite
def rows_and_changes(draw: st.DrawFn, extra: st.SearchStrategy[Any]) -> tuple[list[Row], Changes, list[Row]]:
    count = draw(st.integers(1, 7))
    fates = draw(st.lists(st.sampled_from(["keep", "drop", "drop", *LABELS]), min_size=count, max_size=count))
    rows: list[Row] = []
    changes: dict[str, tuple[str, str | None]] = {}
    expected: list[Row] = []
    for number, fate in enumerate(fates):
        pad = draw(st.sampled_from(["{}", " {}", "{}\n"]))
        label = draw(st.sampled_from(LABELS))
        row = {"id": f"i{number}", "instruction": draw(texts), "output": pad.format(label), "extra": draw(extra)}
        rows.append(row)
        if fate == "drop":
            changes[row["id"]] = label, None
            continue
        if fate not in ("keep", label):
            changes[row["id"]] = label, fate
            row = row | {"output": pad.format(fate)}
        expected.append(row)
    return rows, changes, expected


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
    rows, changes, expected = draw(rows_and_changes(extras))
    objects = [as_object(draw, row, spaces) for row in rows]
    between = ",".join(f"{draw(spaces)}{one}{draw(spaces)}" for one in objects)
    bom = draw(st.sampled_from(["", "\ufeff"]))
    text = f"{bom}{draw(spaces)}[{between}]{draw(spaces)}"
    if len(objects) == 1 and draw(st.booleans()):
        text = bom + draw(spaces) + objects[0] + draw(spaces)
    return Case("m.json", text.encode(), changes, rows, expected)


@st.composite
def jsonl_cases(draw: st.DrawFn) -> Case:
    rows, changes, expected = draw(rows_and_changes(extras))
    flat = st.sampled_from(["", " ", "\t"])
    lines = [as_object(draw, row, flat) for row in rows]
    for bad in draw(st.lists(st.sampled_from(["", " ", "{", "[]"]), max_size=2)):
        lines.insert(draw(st.integers(1, len(lines))), bad)
    data = draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n", "\n \n"]))
    name = draw(st.sampled_from(["m.jsonl", "m.ndjson", "m.JSONL"]))
    return Case(name, draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + data.encode(), changes, rows, expected)


@st.composite
def csv_cases(draw: st.DrawFn) -> Case:
    rows, changes, expected = draw(rows_and_changes(texts))
    end = st.sampled_from(["\n", "\r\n", "\r", "\r\n\r\n"])
    names = draw(st.permutations(["id", "instruction", "output", "extra"]))

    def record(cells: list[str]) -> str:
        out = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
        csv.writer(out, quoting=quoting).writerow(cells)
        return out.getvalue().removesuffix("\r\n")

    text = "".join(record([row[n] for n in names]) + draw(end) for row in ({n: n for n in names}, *rows))
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return Case("m.csv", bom + (text.rstrip("\r\n") if draw(st.booleans()) else text).encode(), changes, rows, expected)


@st.composite
def parquet_cases(draw: st.DrawFn) -> Case:
    rows, changes, expected = draw(rows_and_changes(st.none() | st.lists(st.integers(0, 255), max_size=2)))
    kind = draw(st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]))
    schema = pa.schema(
        [("id", pa.string()), ("instruction", pa.string()), ("output", kind), ("extra", pa.list_(pa.uint8()))],
        metadata={"made": "by hand"},
    )
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, row_group_size=draw(st.integers(1, 8)))
    return Case("m.parquet", out.getvalue(), changes, rows, expected)


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


@pytest.mark.parametrize("cases", [json_cases, jsonl_cases, csv_cases, parquet_cases])
def test_just_the_labels_differ(cases: Callable[[], Any]) -> None:
    @settings(max_examples=80, deadline=None)
    @given(cases())
    def check(case: Case) -> None:
        with TemporaryDirectory() as name:
            manifest = Path(name) / case.name
            manifest.write_bytes(case.data)
            assert rows_of(manifest) == case.rows
            assert corrected(manifest, case.changes) == []
            assert rows_of(copy_of(manifest)) == case.expected
            assert manifest.read_bytes() == case.data
            if not case.changes:
                assert copy_of(manifest).read_bytes() == case.data
            if manifest.suffix == ".parquet":
                there, was = pq.read_table(copy_of(manifest)), pq.read_table(manifest)
                assert there.schema.equals(was.schema, check_metadata=True)

    check()


# --- what stays as it is -------------------------------------------------------------------------------------

TWO = (
    '[\n  {"id": 1, "instruction": "x", "output": "申请退款", "n": 1.50, "m": NaN, "big": 1234567890123456789},\n'
    '  {"id": "2", "output" :"\\u7533请退款 "}\n]\n'
)
SWAP = ("申请退款", "查询物流")


def put(folder: Path, data: str | bytes, name: str = "m.json") -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


def test_a_json_file_differs_in_the_label_only(tmp_path: Path) -> None:
    manifest = put(tmp_path, TWO)
    corrected(manifest, {"1": SWAP, "2": SWAP})
    assert copy_of(manifest).read_text() == TWO.replace("申请退款", "查询物流").replace("\\u7533请退款", "查询物流")


def test_crlf_a_bom_and_broken_lines_stay(tmp_path: Path) -> None:
    data = '\ufeff{"id": 12345678901234567890, "output": "申请退款"}\r\nnot JSON\r\n\r\n{"id": 2, "output": "X"}'
    manifest = put(tmp_path, data, "m.jsonl")
    corrected(manifest, {"12345678901234567890": SWAP})
    assert copy_of(manifest).read_bytes() == data.replace("申请退款", "查询物流").encode()


def test_an_ascii_file_stays_ascii(tmp_path: Path) -> None:
    manifest = put(tmp_path, '{"id": "1", "output": "\\u7533\\u8bf7\\u9000\\u6b3e"}\n', "m.jsonl")
    corrected(manifest, {"1": SWAP})
    assert copy_of(manifest).read_bytes().isascii()
    assert json.loads(copy_of(manifest).read_bytes())["output"] == "查询物流"


def test_rows_that_are_not_utf8_are_carried_along(tmp_path: Path) -> None:
    manifest = put(tmp_path, "id,instruction,output,n\n1,x,申请退款,".encode() + b"\xc7\xeb\n2,\xc7,y,z\n", "m.csv")
    corrected(manifest, {"1": ("申请退款", None)})
    assert copy_of(manifest).read_bytes() == b"id,instruction,output,n\n2,\xc7,y,z\n"


def test_only_changed_cells_of_a_csv_file_are_quoted_otherwise(tmp_path: Path) -> None:
    manifest = put(tmp_path, 'n,"id",instruction,output\r\n"1",a,"x","X"\r\n2,b,x,X\r\n3,c,"x ""y""",X', "m.csv")
    corrected(manifest, {"a": ("X", "申请退款"), "b": ("X", "a,b"), "c": ("X", "查询物流")})
    assert copy_of(manifest).read_bytes().decode() == (
        'n,"id",instruction,output\r\n"1",a,"x","申请退款"\r\n2,b,x,"a,b"\r\n3,c,"x ""y""",查询物流'
    )


def test_parquet_cells_that_are_not_utf8_are_carried_along(tmp_path: Path) -> None:
    raw = pa.array([b"\xc7\xeb", b"x", b"\xc7"]).view(pa.string())
    nested = pa.array([{"a": [1, None]}, None, {"a": []}], pa.struct([("a", pa.list_(pa.int16()))]))
    table = pa.table({"id": [1, 2, 3], "instruction": raw, "output": ["申请退款"] * 3, "nested": nested})
    pq.write_table(table, tmp_path / "m.parquet")
    corrected(tmp_path / "m.parquet", {"1": SWAP, "3": ("申请退款", None)})
    copy = pq.read_table(copy_of(tmp_path / "m.parquet"))
    assert copy["output"].to_pylist() == ["查询物流", "申请退款"]
    assert copy.drop(["output"]).equals(table.drop(["output"]).slice(0, 2))


@pytest.mark.parametrize("gone", ["a", "b", "c", "ab", "ac", "bc", "abc"])
def test_an_array_stays_one_whatever_is_removed(tmp_path: Path, gone: str) -> None:
    text = "[ " + "\n , ".join(f'{{"id": "{i}", "output": "申请退款"}}' for i in "abc") + " ]"
    manifest = put(tmp_path, text)
    corrected(manifest, dict.fromkeys(gone, ("申请退款", None)))
    assert "".join(row["id"] for row in rows_of(copy_of(manifest))) == "".join(i for i in "abc" if i not in gone)


# --- which items ---------------------------------------------------------------------------------------------


def test_all_items_with_one_id_and_label_are_changed(tmp_path: Path) -> None:
    lines = [json.dumps({"id": i, "output": "申请退款"}, ensure_ascii=False) + "\n" for i in ("1", "2", "2")]
    manifest = put(tmp_path, "".join(lines), "m.jsonl")
    corrected(manifest, {"2": SWAP})
    assert [row["output"] for row in rows_of(copy_of(manifest))] == ["申请退款", "查询物流", "查询物流"]


def test_the_packs_columns_name_the_fields(tmp_path: Path) -> None:
    table = pa.table({"photo": ["a.png", "b.png"], "output": ["申请退款"] * 2, "category": ["申请退款"] * 2})
    columns = Columns(id=None, instruction=None, image="photo", output="category")
    pq.write_table(table, tmp_path / "m.parquet")
    put(tmp_path, "photo,output,category\na.png,申请退款,申请退款\nb.png,申请退款,申请退款\n", "m.csv")
    for name in ("m.parquet", "m.csv"):
        corrected(tmp_path / name, {"b.png": SWAP}, columns)
        assert [row["category"] for row in rows_of(copy_of(tmp_path / name))] == ["申请退款", "查询物流"]
        assert [row["output"] for row in rows_of(copy_of(tmp_path / name))] == ["申请退款"] * 2


@pytest.mark.parametrize("output", ['"X"', "null", "3", '""', "[]", '"{\\"intent\\": \\"申请退款\\"}"'])
def test_an_item_with_another_label_than_the_one_judged_is_left_alone(tmp_path: Path, output: str) -> None:
    manifest = put(tmp_path, f'[{{"id": "1", "instruction": "x", "output": {output}}}]')
    assert corrected(manifest, {"1": SWAP, "gone": SWAP}) == ["1", "gone"]
    assert copy_of(manifest).read_bytes() == manifest.read_bytes()
    assert (tmp_path / "correction" / "corrections.jsonl").read_bytes() == b""


def test_a_manifest_that_can_no_longer_be_read_is_named(tmp_path: Path) -> None:
    manifest = put(tmp_path, "[", "m.json")
    with pytest.raises(ManifestError, match=r"m\.json"):
        corrected(manifest, {"1": SWAP})
    manifest.unlink()
    with pytest.raises(ManifestError, match=r"m\.json: cannot be read"):
        corrected(manifest, {"1": SWAP})


def test_each_manifest_of_a_folder_has_its_copy_and_former_copies_go(tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "correction"
    folder.mkdir()
    first = put(folder, '[{"id": "1", "output": "申请退款"}]', "a.json")
    second = put(folder, '{"id": "1", "output": "申请退款"}\n{"id": "2", "output": "申请退款"}\n', "b.jsonl")
    samples = [sample("1", source=str(first)), sample("2", source=str(second))]
    relabel = {"action": Action.RELABEL, "label": "查询物流"}
    drop = {"action": Action.DROP, "label": None, "reviewed": True}
    write_corrected(folder, DEFAULT_COLUMNS, samples, [correction("1", **relabel), correction("2", **drop)], out)
    assert (out / "corrected/a.json").read_text() == '[{"id": "1", "output": "查询物流"}]'
    assert (out / "corrected/b.jsonl").read_text() == '{"id": "1", "output": "查询物流"}\n'
    assert [json.loads(line) for line in (out / "corrections.jsonl").open()] == [
        {"source": str(first), "id": "1", "given": "申请退款", "now": "查询物流", "why": "because", "reviewed": False},
        {"source": str(second), "id": "2", "given": "申请退款", "now": None, "why": "because", "reviewed": True},
    ]
    second.unlink()
    write_corrected(folder, DEFAULT_COLUMNS, samples[:1], [correction("1", action=Action.REVIEW)], out)
    assert [path.name for path in (out / "corrected").iterdir()] == ["a.json"]
    assert (out / "corrected/a.json").read_bytes() == first.read_bytes()
    assert (out / "corrections.jsonl").read_bytes() == b""


def test_a_runs_own_copy_is_no_manifest_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a corrected copy that this run would overwrite"):
        check_not_own_copy(tmp_path / "corrected" / "m.json", tmp_path)
    check_not_own_copy(tmp_path / "m.json", tmp_path)
