"""The likeliest mistakes in manifests: each message says what is meant, or the item is read."""

import base64
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from tasks.correction.corrected_manifest import write_corrected
from tasks.errors import ManifestError
from tasks.items.samples import Intake, Reason, read_samples
from tasks.packs.pack import Pack, load_pack
from tasks.records import Action, Correction, Split
from tests.tasks.intake import SHOWN, item, reasons

DEMO = load_pack("demo")
NUMBERED = DEMO.model_copy(
    update={
        "tasks": {
            k: t.model_copy(update={"labels": {"1": "", "2": ""}, "label_list": None}) for k, t in DEMO.tasks.items()
        }
    }
)
"""The demo's pack with the labels 1 and 2."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", unicodedata.normalize("NFC", "caf\u00e9.png")):
        Image.new("RGB", (40, 30)).save(folder / name)
    return folder


def read(images: Path, *items: Any, pack: Pack = DEMO) -> Intake:
    return read_content(images, "train.json", json.dumps(items, ensure_ascii=False).encode(), pack)


def read_content(images: Path, name: str, content: bytes, pack: Pack = DEMO) -> Intake:
    (images.parent / name).write_bytes(content)
    return read_samples(images.parent / name, images, pack, Split.LABELLED, cache=images.parent / "cache")


def find_detail(intake: Intake) -> str:
    (dropped,) = intake.dropped
    return dropped.detail


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sub\\b.png", "sub/b.png"),
        ("A.PNG", "a.png"),
        ("images/a.png", "a.png"),
        ("./data/images/sub/b.png", "sub/b.png"),
        ("/home/anna/images/a.png", "a.png"),
        ("a.png ", "a.png"),
        ("ａ.png", "a.png"),
        ("b.png", "sub/b.png"),
        ("a.jpg", "a.png"),
        ("sub/b", "sub/b.png"),
        ("sub%2Fb.png", "sub/b.png"),
        (unicodedata.normalize("NFD", "caf\u00e9.png"), "caf\u00e9.png"),
    ],
)
def test_a_name_that_almost_leads_to_a_file_is_refused_with_that_file(images: Path, name: str, meant: str) -> None:
    detail = find_detail(read(images, item(image=[name])))
    assert f"did you mean `{meant}`?" in detail


def test_a_name_that_fits_several_files_or_none_is_not_guessed(images: Path) -> None:
    Image.new("RGB", (40, 30)).save(images / "b.png")
    assert "there are 2 files with similar names" in find_detail(read(images, item(image=["other/b.png"])))
    assert "did you mean" not in find_detail(read(images, item(image=["c.png"])))


def test_in_an_empty_folder_the_folder_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert "the folder is empty" in find_detail(read(tmp_path / "images", item()))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("https://shop.example/a.png", "the URL https://shop.example/a.png"),
        ("//cdn.shop.example/a.png?w=200", "the URL //cdn.shop.example"),
        ("file:///data/a.png", "the URL file:///data/a.png"),
        ("data:image/png;base64," + "A" * 2_000_000, "a data URI of 2,000,022 characters"),
        (base64.b64encode(b"\x89PNG" + bytes(1_000_000)).decode(), "written in base64"),
    ],
)
def test_an_address_or_the_image_itself_is_no_file_name(images: Path, image: str, kind: str) -> None:
    intake = read(images, item(image=[image]))
    assert reasons(intake) == [("a", Reason.IMAGE_NOT_A_NAME)]
    assert kind in find_detail(intake) and "save the image as a file" in find_detail(intake)
    assert len(find_detail(intake)) < 400


def test_the_links_of_a_hub_snapshot_lead_to_its_files(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--anna--shop"
    images, blobs = repository / "snapshots" / "0a1b" / "images", repository / "blobs"
    images.mkdir(parents=True)
    blobs.mkdir()
    Image.new("RGB", (40, 30)).save(blobs / "f00d", "PNG")
    (images / "a.png").symlink_to("../../../blobs/f00d")
    (tmp_path / "secret.png").write_bytes((blobs / "f00d").read_bytes())
    (images / "b.png").symlink_to("../../../../secret.png")
    intake = read(images, item(), item(id="b", image=["b.png"]))
    assert [s.id for s in intake.kept] == ["a"]
    assert reasons(intake) == [("b", Reason.PATH_ESCAPES)]


@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m.csv"])
def test_a_file_in_gbk_is_named_once_with_the_fix(images: Path, name: str) -> None:
    rows = [item(id=str(n), image=["a.png"]) for n in range(3)]
    text = {
        "m.json": json.dumps(rows, ensure_ascii=False),
        "m.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "m.csv": pd.DataFrame(rows).to_csv(index=False),
    }[name]
    with pytest.raises(ManifestError, match=f"{name}: the file is in GBK or GB18030.*iconv -f GB18030 -t UTF-8 {name}"):
        read_content(images, name, text.encode("gb18030"))


@pytest.mark.parametrize("words", [("Tür", "Größe"), ("café crème", "là-bas"), ("Übung", "schön")])
def test_a_file_in_latin_1_is_not_taken_for_gbk(images: Path, words: tuple[str, ...]) -> None:
    table = "id,text,label\n" + "".join(f"{n},a house,{words[n % 2]}\n" for n in range(30))
    with pytest.raises(ManifestError, match=r"probably Latin-1 \(Windows-1252\).*iconv -f WINDOWS-1252"):
        read_content(images, "m.csv", table.encode("latin-1"))
    chinese = "id,text,label\n" + "".join(f"{n},a house,{('售后', 'T恤衫', '包')[n % 3]}\n" for n in range(30))
    with pytest.raises(ManifestError, match="the file is in GBK"):
        read_content(images, "m.csv", chinese.encode("gbk"))


def test_one_damaged_line_does_not_make_a_file_gbk(images: Path) -> None:
    lines = [json.dumps(item(id=str(n)), ensure_ascii=False).encode() for n in range(4)]
    lines[2] = json.dumps(item(id="2"), ensure_ascii=False).encode("gb18030")
    assert reasons(read_content(images, "m.jsonl", b"\n".join(lines))) == [("line-3", Reason.NOT_UTF8)]


@pytest.mark.parametrize(("label", "read_as"), [(1, "1"), (2.0, "2"), ("２", "2"), (" 1 ", "1")])
def test_a_number_is_read_as_the_label_of_that_text(images: Path, label: object, read_as: str) -> None:
    (sample,) = read(images, item(output=label), pack=NUMBERED).kept
    assert sample.given == read_as


@pytest.mark.parametrize("label", ["【商品页】", "商品页\u200b", "商 品 页", "（商品页）", "“商品页”", "\ufeff商品页"])
def test_a_label_in_another_spelling_is_read_and_reported(images: Path, label: str) -> None:
    intake = read(images, item(output=label))
    assert [s.given for s in intake.kept] == ["商品页"]
    assert intake.respelled == {(label.strip(), "商品页"): 1}
    assert "`商品页`" in intake.list_warnings()[0]


@pytest.mark.parametrize(
    ("label", "meant"),
    [("商品页面", ""), ("商品页？", "商品页"), (["商品页"], "is a list, expected a label"), ("其他", "")],
)
def test_another_label_is_refused_and_the_nearest_named(images: Path, label: object, meant: str) -> None:
    intake = read(images, item(output=label))
    assert reasons(intake) == [("a", Reason.UNKNOWN_LABEL)]
    assert meant in find_detail(intake)


@pytest.mark.parametrize(
    ("renamed", "field"),
    [
        ({"image": "images"}, "image"),
        ({"output": "label"}, "output"),
        ({"output": "answer"}, "output"),
        ({"id": "ID"}, "id"),
        ({"instruction": "text"}, "instruction"),
        ({"instruction": "instructions"}, "instruction"),
    ],
)
def test_a_key_that_nothing_reads_is_suggested_for_the_one_that_is_missing(
    images: Path, renamed: dict[str, str], field: str
) -> None:
    row = {renamed.get(key, key): value for key, value in item(image=["a.png"]).items()}
    expected = f"set `{field}: {renamed[field]}` under `columns` of pack.yaml"
    assert expected in find_detail(read(images, row))
    if field in ("id", "instruction"):  # a table may lack the others
        with pytest.raises(ManifestError, match="no column") as error:
            read_content(images, "m.csv", pd.DataFrame([row]).to_csv(index=False).encode())
        assert expected in str(error.value)


TURNS = [{"from": "human", "value": "<image>哪一类?"}, {"from": "gpt", "value": "商品页"}]
FRAME = pd.DataFrame([item(id=str(n), image="a.png") for n in range(2)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"conversations": TURNS, "images": ["a.png"]}], r"contains conversations \(`conversations`\)"),
        ([{"id": "1", "messages": [], "image": "a.png"}], r"contains conversations \(`messages`\)"),
        (
            {"images": [{"id": 1, "path": "a.png"}], "annotations": [], "categories": []},
            "is a COCO file .* `file_name`",
        ),
        ([{"id": 1, "data": {"image": "a.png"}, "annotations": []}], "is an export of Label Studio"),
        (json.loads(FRAME.to_json()), "written by pandas column by column.*orient='records'"),
        (json.loads(FRAME.to_json(orient="split")), "orient='split'.*orient='records'"),
        (json.loads(FRAME.to_json(orient="table")), "orient='table'.*orient='records'"),
        (json.loads(FRAME.to_json(orient="values")), "lists instead of objects.*orient='records'"),
        (json.loads(FRAME.to_json(orient="index")), "contains the items as values of one object"),
        ({"data": [item()]}, "contains its items under the key `data`"),
    ],
)
def test_files_of_other_programs_are_recognised(images: Path, content: object, message: str) -> None:
    with pytest.raises(ManifestError, match=f"m.json: .*{message}"):
        read_content(images, "m.json", json.dumps(content).encode())


def test_a_file_with_one_item_is_read_whatever_else_it_has(images: Path) -> None:
    (sample,) = read_content(images, "m.json", json.dumps(item(objects=[{"box": [1, 2, 3, 4]}])).encode()).kept
    assert sample.id == "a"


def test_images_come_first_where_the_pack_says_so(images: Path) -> None:
    rows = [
        {"id": "a", "instruction": "红色", "image": "a.png", "output": True},
        {"id": "b", "instruction": None, "image": ["a.png", "sub/b.png"], "output": False},
        {"id": "c", "instruction": "只有文字", "image": None, "output": True},
        {"id": "d", "instruction": "左<image>右", "image": "a.png", "output": False},
        {"id": "e", "instruction": "", "image": "", "output": True},
    ]
    task = DEMO.task("image").model_copy(
        update={"labels": {"true": "", "false": ""}, "recognise": None, "label_list": None}
    )
    pack = DEMO.model_copy(update={"tasks": {"one": task}, "images_first": True})
    intake = read(images, *rows, pack=pack)
    kinds = [[type(part).__name__ for part in sample.parts] for sample in intake.kept]
    assert kinds == [["ImagePart", "TextPart"], ["ImagePart"] * 2, ["TextPart"], ["TextPart", "ImagePart", "TextPart"]]
    assert [sample.given for sample in intake.kept] == ["true", "false", "true", "false"]
    assert reasons(intake) == [("e", Reason.EMPTY_ITEM)]
    strict = read(images, *rows, pack=pack.model_copy(update={"images_first": False}))
    assert ("a", Reason.PLACEHOLDER_MISMATCH) in reasons(strict)


def test_names_as_numpy_prints_them_are_read(images: Path) -> None:
    row = item(instruction=SHOWN.replace("<image>", "<image><image>"), image="['a.png' 'sub/b.png']")
    (sample,) = read_content(images, "m.csv", pd.DataFrame([row]).to_csv(index=False).encode()).kept
    assert [Path(image.path).name for image in sample.images] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "id;instruction;image;output\n1;x;a.png;商品页\n".encode("utf-8-sig"), "separated by ';'"),
        ("m.csv", b"id\tinstruction\timage\toutput\n", r"separated by '\\t'"),
        ("m.csv", b"PK\x03\x04rest", "contains an Excel workbook"),
        ("m.json", b"\x1f\x8brest", "contains a gzip file"),
        ("m.json.gz", b"\x1f\x8brest", "unpack it first"),
        ("m.jsonl", b"PAR1", "name it .parquet"),
    ],
)
def test_a_file_of_another_kind_is_named(images: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_content(images, name, content)


def test_columns_with_marks_and_an_array_under_another_name_are_read(images: Path) -> None:
    table = pd.DataFrame([item(image="a.png")]).rename(columns={"id": "\ufeff id ", "output": "output "})
    assert len(read_content(images, "m.csv", table.to_csv(index=False).encode("utf-8-sig")).kept) == 1
    array = json.dumps([item(), item(id="b")], ensure_ascii=False, indent=1)
    assert len(read_content(images, "m.jsonl", array.encode("utf-8-sig")).kept) == 2


def test_several_missing_columns_are_suggested_at_once(images: Path) -> None:
    row = {"file_name": "a.png", "text": SHOWN, "label": "商品页"}
    detail = find_detail(read(images, row))
    assert "`instruction: text`, `image: file_name`, `output: label`" in detail and "leave out `id`" in detail


def encode_png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_inside_a_parquet_file_are_unpacked_by_digest(images: Path) -> None:
    cells = [{"bytes": encode_png(colour), "path": "same.png"} for colour in ("red", "blue", "red")]
    rows = [item(id=str(n), image=cell) for n, cell in enumerate(cells)]
    rows += [item(id="list", image=[cells[1]]), item(id="path", image=[{"bytes": None, "path": "a.png"}])]
    for name, chosen in (("one.parquet", rows[:3]), ("lists.parquet", rows[3:])):
        intake = read_content(images, name, pd.DataFrame(chosen).to_parquet(None))
        assert [s.id for s in intake.kept] == [row["id"] for row in chosen]
    assert len(list((images.parent / "cache" / "unpacked").iterdir())) == 2


@pytest.mark.parametrize(("given", "now", "written"), [(1, "2", b'"output": 2'), ("［1］", "2", b'"output": "2"')])
def test_a_corrected_copy_has_the_label_in_the_manifests_own_form(
    images: Path, given: object, now: str, written: bytes
) -> None:
    (sample,) = read(images, item(output=given), pack=NUMBERED).kept
    change = Correction(
        sample_id="a",
        given="1",
        predicted=None,
        adjudicated=None,
        candidate=now,
        action=Action.RELABEL,
        label=now,
        why="",
    )
    manifest = images.parent / "train.json"
    assert write_corrected(manifest, NUMBERED.columns, [sample], [change], images.parent / "out") == []
    assert written in (images.parent / "out" / "corrected" / "train.json").read_bytes()
