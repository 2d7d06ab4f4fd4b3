import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tasks.errors import ManifestError
from tasks.items.manifest_folders import manifest_files
from tasks.items.samples import Intake, read_samples
from tasks.packs.pack import load_pack
from tasks.records import Split
from tests.tasks.intake import item, reasons

DEMO = load_pack("demo")


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
    (folder / "10.jsonl").write_text(f"{line}\n{json.dumps(item(id='a', output='支付页'))}\n", encoding="utf-8")
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
    assert (again.reason, again.detail) == ("duplicate_id", "2.json, item 1: id `a` was taken by 10.jsonl, line 2")


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
    assert [file.name for file in manifest_files(folder)] == ["2.json"]
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
    with pytest.raises(ManifestError, match=r"watched: no manifest in this folder holds items; put one there \(\.json"):
        read(folder)


def test_a_folder_whose_names_are_not_utf8_keeps_writable_books(folder: Path) -> None:
    odd = folder / "x\udcff.json"
    odd.write_text(json.dumps([item(id="z"), 3]), encoding="utf-8")
    intake = read(folder)
    assert [s.source.encode() for s in intake.kept if s.id == "z"] == [str(folder / "x?.json").encode()]
    assert reasons(intake) == [("x?.json:item-2", "not_an_object")]
