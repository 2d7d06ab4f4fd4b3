import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.errors import ManifestError
from tasks.items.manifests import list_manifest_files
from tasks.items.samples import Intake, read_samples
from tasks.packs.pack import load_pack
from tasks.records import Split
from tests.tasks.intake import SAID, SHOWN, item, reasons

DEMO = load_pack("demo")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    return folder


ROWS = [
    item(id="1"),
    item(id="2", image="a.png", output="支付页"),
    item(id="3", instruction=SAID, image=[], output=None),
]


def make_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "note", "instruction", "image", "output"])
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {"image": json.dumps(row["image"]) if isinstance(row["image"], list) else row["image"]})
    return out.getvalue().encode("utf-8-sig")


def make_parquet(rows: list[dict[str, Any]]) -> bytes:
    lists = [row | {"image": [row["image"]] if isinstance(row["image"], str) else row["image"]} for row in rows]
    return pd.DataFrame(lists).to_parquet(None)


LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.json", json.dumps(ROWS, ensure_ascii=False, indent=1).encode("utf-8-sig")),
        ("m.json", LINES),
        ("m.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("m.csv", make_csv(ROWS)),
        ("m.CSV", make_csv(ROWS).replace(b'["a.png"]', b"['a.png']").replace(b'"[""a.png""]"', b"['a.png']")),
        ("m.parquet", make_parquet(ROWS)),
    ],
)
def test_every_format_says_the_same(images: Path, tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    intake = read_samples(tmp_path / name, images, DEMO, Split.TEST)
    assert [(s.id, s.given, len(s.images)) for s in intake.kept] == [
        ("1", "商品页", 1),
        ("2", "支付页", 1),
        ("3", None, 0),
    ]
    assert {s.source for s in intake.kept} == {str(tmp_path / name)}


def test_a_bad_line_is_a_bad_item(images: Path, tmp_path: Path) -> None:
    lines = LINES.split(b"\n")[:2]
    (tmp_path / "m.jsonl").write_bytes(b"\n".join([lines[0], b'{"id": "\xc7\xeb"}', b'{"id": ', b"[]", lines[1]]))
    intake = read_samples(tmp_path / "m.jsonl", images, DEMO, Split.LABELLED)
    assert [s.id for s in intake.kept] == ["1", "2"]
    assert reasons(intake) == [("line-2", "not_utf8"), ("line-3", "malformed"), ("line-4", "not_an_object")]


def test_a_bad_row_is_a_bad_item(images: Path, tmp_path: Path) -> None:
    data = make_csv(ROWS[:1]) + b"9,,too,many,cells,here\r\n8,,\xc7\xeb,a.png,x\r\n"
    (tmp_path / "m.csv").write_bytes(data)
    intake = read_samples(tmp_path / "m.csv", images, DEMO, Split.LABELLED)
    assert reasons(intake) == [("item-2", "malformed"), ("8", "not_utf8")]
    raw = pa.array([SHOWN.encode(), b"\xc7\xeb"]).view(pa.string())
    columns = {"id": [1, 2], "instruction": raw, "image": ["a.png"] * 2, "output": ["商品页"] * 2}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    intake = read_samples(tmp_path / "m.parquet", images, DEMO, Split.LABELLED)
    assert ([s.id for s in intake.kept], reasons(intake)) == (["1"], [("2", "not_utf8")])


ODD = [item(id="1", input="用户: 在吗"), item(id="2", input=""), item(id="3", input=None)]
"""The challenge's items with a key that no pack reads."""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.json", json.dumps(ODD)),
        ("m.jsonl", "\n".join(map(json.dumps, ODD))),
        ("m.csv", pd.DataFrame([row | {"image": "a.png"} for row in ODD]).to_csv(index=False)),
        ("m.parquet", pd.DataFrame([row | {"image": ["a.png"]} for row in ODD]).to_parquet()),
    ],
)
def test_every_format_counts_the_same_unread_keys(images: Path, tmp_path: Path, name: str, data: str | bytes) -> None:
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    assert read_samples(tmp_path / name, images, DEMO, Split.LABELLED).unread == {"input": 1}


def test_unread_cells_of_parquet_count_if_they_hold_something(images: Path, tmp_path: Path) -> None:
    columns = {key: [row[key] for row in ROWS] for key in ROWS[0]} | {"image": [["a.png"], ["a.png"], []]}
    columns |= {"videos": [[], ["v.mp4"], None], "score": [None, 0, 1]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    intake = read_samples(tmp_path / "m.parquet", images, DEMO, Split.TEST)
    assert intake.unread == {"score": 2, "videos": 1} and len(intake.kept) == 3


def test_an_object_with_a_repeated_key_is_refused(images: Path, tmp_path: Path) -> None:
    twice = json.dumps(item(id="2")).replace("}", ', "image": ["b.png"]}')
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(item(id='1'))}\n{twice}\n", encoding="utf-8")
    (tmp_path / "m.json").write_text(f"[{json.dumps(item(id='1'))}, {twice}]", encoding="utf-8")
    for name in ("m.jsonl", "m.json"):
        intake = read_samples(tmp_path / name, images, DEMO, Split.LABELLED)
        assert ([s.id for s in intake.kept], reasons(intake)) == (["1"], [("2", "duplicate_key")])
        assert "contains the key `image` more than once; keep one" in intake.dropped[0].detail


@pytest.mark.parametrize("names", [["id", "instruction", "note", "note"], ["id", "instruction", "id", "note"]])
def test_a_table_with_two_columns_of_one_name_is_refused(images: Path, tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "m.csv").write_text(f"{','.join(names)}\n1,x,y,z\n", encoding="utf-8")
    pq.write_table(pa.table([pa.array(["1"])] * 4, names), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(ManifestError, match=r"has several columns named `(note|id)`; keep one, or rename"):
            read_samples(tmp_path / name, images, DEMO, Split.LABELLED)


def test_columns_without_a_name_are_no_duplicates(images: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,instruction,image,output,,\n1,x,,,,seen\n", encoding="utf-8")
    assert read_samples(tmp_path / "m.csv", images, DEMO, Split.LABELLED).unread == {"column 6": 1}


def test_ids_in_a_column_of_rounded_numbers_are_refused(images: Path, tmp_path: Path) -> None:
    row = {"id": [16777217], "instruction": [SHOWN], "image": ["a.png"], "output": ["商品页"]}
    pq.write_table(pa.table(row | {"id": pa.array(row["id"]).cast(pa.float32(), safe=False)}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"column `id` are of type float, which rounds"):
        read_samples(tmp_path / "m.parquet", images, DEMO, Split.LABELLED)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("m.json", b'[\n {"id": "1",}\n]', "line 2, column 13: not JSON"),
        ("m.json", b"", "is empty"),
        ("m.json", b"[]", "no items"),
        ("m.json", b'{"data": []}', "write an array"),
        ("m.json", b'"x"', "write an array"),
        ("m.json", b"[" * 100_000, "not JSON"),
        ("m.json", "[]".encode("utf-16"), "save it as UTF-8"),
        ("m.jsonl", b"\n{'id': 1}\nnothing\n", "line 2, column 2: not JSON"),
        ("m.jsonl", b"\n", "no items"),
        ("m.csv", b"id,text\n1,x\n", "no column `instruction`, only id, text"),
        ("m.csv", b"id,instruction\n", "no items"),
        ("m.csv", b'id,instruction\n1,"x\n', "line 2: not CSV"),
        ("m.parquet", b"PAR1 not really", "not Parquet"),
        ("m.xlsx", b"", "unknown file type; use .json"),
        ("m.json", None, "no such file"),
    ],
)
def test_a_bad_file_is_named_with_the_fix(images: Path, tmp_path: Path, name: str, data: bytes, says: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ManifestError) as error:
        read_samples(tmp_path / name, images, DEMO, Split.LABELLED)
    assert str(tmp_path / name) in str(error.value) and says in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_image_folder_is_a_file_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such image folder"):
        read_samples(tmp_path / "m.json", tmp_path / "pictures", DEMO, Split.LABELLED)


def test_a_manifest_in_a_folder_that_cannot_be_entered_names_itself(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.stat

    def refused(self: Path, **how: bool) -> os.stat_result:
        if self.name == "x.json":  # the tests run as root, who may enter any folder
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **how)

    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(ManifestError, match=r"x\.json: cannot be read: Permission denied; check its permissions"):
        read_samples(tmp_path / "x.json", images, DEMO, Split.LABELLED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "a.png")
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "2.json").write_text(json.dumps([item(id="a"), item(id="b")]), encoding="utf-8")
    return watched


def read(folder: Path) -> Intake:
    intake = read_samples(folder, folder.parent / "images", DEMO, Split.LABELLED)
    assert len(intake.kept) + len(intake.dropped) == intake.read
    return intake


def test_all_manifests_in_a_folder_are_one_set_by_name(folder: Path) -> None:
    line = json.dumps(item(id="c"))
    (folder / "10.jsonl").write_text(f"{line}\n{json.dumps(item(id='a'))}\n", encoding="utf-8")
    pd.DataFrame([item(id="d")]).to_parquet(folder / "3.parquet")
    pd.DataFrame([item(id="e", image="a.png")]).to_csv(folder / "4.CSV", index=False)
    intake = read(folder)
    assert [(s.id, Path(s.source).name) for s in intake.kept] == [
        ("c", "10.jsonl"),
        ("a", "10.jsonl"),
        ("b", "2.json"),
        ("d", "3.parquet"),
        ("e", "4.CSV"),
    ]
    (again,) = intake.dropped
    assert (again.reason, again.detail) == (
        "duplicate_id",
        "2.json, item 1: id `a` is already used by 10.jsonl, line 2",
    )


def test_places_and_names_of_bad_items_say_their_file(folder: Path) -> None:
    (folder / "3.jsonl").write_bytes(b'{"id": \n[]\n{"id": "x\xff"}\n')
    assert [(d.sample_id, d.reason, d.detail.split(": ")[0]) for d in read(folder).dropped] == [
        ("3.jsonl:line-1", "malformed", "3.jsonl, line 1"),
        ("3.jsonl:line-2", "not_an_object", "3.jsonl, line 2"),
        ("3.jsonl:line-3", "not_utf8", "3.jsonl, line 3"),
    ]


def test_what_is_hidden_unfinished_or_of_another_kind_is_left_out(folder: Path) -> None:
    for name in (".2.json.77", ".x.json", "~$x.csv", "x.json~", "x.json.part", "x.jsonl.tmp", "#x.json#", "notes.txt"):
        (folder / name).write_text("[1]", encoding="utf-8")
    (folder / "old.json").mkdir()
    assert [file.name for file in list_manifest_files(folder)] == ["2.json"]
    assert [s.id for s in read(folder).kept] == ["a", "b"]


def test_a_file_without_items_waits_for_some(folder: Path) -> None:
    for name, text in (("1.json", "[]"), ("3.jsonl", "\n"), ("4.csv", "id,instruction\n")):
        (folder / name).write_text(text, encoding="utf-8")
    assert read(folder).read == 2


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("3.json", "[{]", "line 1, column 3: not JSON"),
        ("3.json", "", "is empty"),
        ("3.csv", "id,text\n1,x\n", "no column `instruction`"),
        ("3.parquet", "PAR1", "not Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_stops_the_set_and_is_named(folder: Path, name: str, text: str, says: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as error:
        read(folder)
    assert str(folder / name) in str(error.value) and says in str(error.value)


def test_a_folder_without_items_is_an_error_that_says_what_it_waits_for(folder: Path) -> None:
    (folder / "2.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"watched: no manifest in this folder contains items; add one \(\.json"):
        read(folder)


def test_a_folder_whose_names_are_not_utf8_keeps_writable_books(folder: Path) -> None:
    odd = folder / "x\udcff.json"
    odd.write_text(json.dumps([item(id="z"), 3]), encoding="utf-8")
    intake = read(folder)
    assert [s.source.encode() for s in intake.kept if s.id == "z"] == [str(folder / "x?.json").encode()]
    assert reasons(intake) == [("x?.json:item-2", "not_an_object")]
