"""`labelstill init`: from data of any usual kind to a pack and a run.yaml that `check` and `find-errors` read."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from flows.commands.main import app
from flows.config import load_config
from tasks.demo.dataset import write_demo
from tasks.errors import ConfigError, LabelstillError, ManifestError
from tasks.packs.pack import Pack, load_pack
from tasks.storage.stage_record import read_record
from tests.conftest import PrefectServer
from tests.flows.commands.labelled_data import KINDS, frame, label, make_csv, picture, text, write_json


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder. All tests share the text on images, so that it is read once."""
    monkeypatch.chdir(tmp_path)
    Path("artifacts").mkdir()
    Path("artifacts/texts").symlink_to(texts)
    return tmp_path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def read_pack() -> Pack:
    return load_pack(load_config(Path("run.yaml")).pack)


def list_labels(pack: Pack) -> list[str]:
    return [label for task in pack.tasks.values() for label in task.labels]


def write_table(**columns: list[object]) -> None:
    Path("data").mkdir()
    pd.DataFrame(columns).to_csv("data/m.csv", index=False)


QUICK = ("make_csv", "make_folders", "make_prompts")


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=() if make.__name__ in QUICK else pytest.mark.slow) for make in KINDS],
    ids=lambda make: make.__name__,
)
def test_data_of_any_kind_are_checked_and_searched(prefect_server: PrefectServer, make: Callable[[Path], None]) -> None:
    items, labels = KINDS[make]
    make(Path("data"))
    before = {file: file.read_bytes() for file in Path("data").rglob("*") if file.is_file()}
    said = call("init", "data")
    assert f"{items} items, {len(labels)} labels" in said
    assert sorted(list_labels(read_pack())) == sorted(labels)
    assert f"labelled: {items} read, {items} kept, 0 dropped" in call("check")
    assert f"of {items} given labels" in call("find-errors")
    assert read_record(load_config(Path("run.yaml")).output / "correction") is not None
    assert {file: file.read_bytes() for file in Path("data").rglob("*") if file.is_file()} == before
    with pytest.raises(ConfigError, match="pack: exists already, and `init` overwrites nothing"):
        call("init", "data")


def test_the_demos_items_are_recognised(folder: Path) -> None:
    paths = write_demo(folder / "demo", labelled=60, unlabelled=20, test=20)
    said = call("init", str(paths.labelled.manifest.parent))
    assert "the items are those of the pack demo" in said and "66 items" in said and "60 usable, 6 not" in said
    assert read_pack().tasks == load_pack("demo").tasks


def test_tasks_are_told_apart_by_how_their_texts_begin(folder: Path) -> None:
    next(make for make in KINDS if make.__name__ == "make_prompts")(Path("data"))
    said = call("init", "data")
    assert "Chinese" in said and "2 tasks, told apart by how the texts begin: task1: " in said
    pack = read_pack()
    assert [sorted(task.labels) for task in pack.tasks.values()] == [["狗", "猫", "鸟"], ["正面", "负面"]]
    assert all(task.recognise is not None for task in pack.tasks.values())


def test_ocr_is_on_where_images_show_text() -> None:
    table = frame(Path("data"))
    for name in table.image:
        image = Image.new("RGB", (320, 80), "white")
        ImageDraw.Draw(image).text((10, 20), f"Order {name[:-4]}7", "black", ImageFont.load_default(32))
        image.save(Path("data/images") / name)
    table.to_csv("data/m.csv", index=False)
    assert "OCR on: 12 of 12 sampled images show text" in call("init", "data")
    assert read_pack().ocr is not None


def test_columns_are_named_by_options_or_by_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = range(36)
    brands = [("acme", "umbrella")[n % 2] for n in numbers]
    write_table(id=[*numbers], text=[text(n) for n in numbers], category=[label(n) for n in numbers], label=brands)
    assert "assumed: label is `label`, not `category`; --label changes it" in call("init", "data/m.csv")
    shutil.rmtree("pack")
    Path("run.yaml").unlink()
    call("init", "data/m.csv", "--label", "category")
    assert sorted(list_labels(read_pack())) == ["bird", "cat", "dog"]
    with pytest.raises(ConfigError, match="exists already"):
        call("init", "data/m.csv", "--label", "brand")
    Path("run.yaml").unlink()
    shutil.rmtree("pack")
    with pytest.raises(ConfigError, match="--label: no column `brand` with content; there are `id`, `text`"):
        call("init", "data/m.csv", "--label", "brand")
    assert not Path("pack").exists() and not list(Path().glob(".labelstill*"))


def test_a_small_set_gets_fewer_folds_and_one_label_none() -> None:
    write_table(id=[*range(9)], text=[text(n) for n in range(9)], label=[label(n) for n in range(9)])
    call("init", "data")
    student = load_config(Path("run.yaml")).student
    assert student is not None and student.folds == 3
    Path("other").mkdir()
    pd.DataFrame({"text": [text(3 * n) for n in range(9)], "label": "cat"}).to_csv("other/m.csv", index=False)
    shutil.rmtree("pack")
    Path("run.yaml").unlink()
    assert "once at least two labels have two different items" in call("init", "other")
    rows = [json.loads(line) for line in Path("items/items.jsonl").read_text().splitlines()]
    assert rows[0] == {"id": "row-1", "text": text(0), "label": "cat"}


def test_items_that_are_written_anew_keep_the_names_of_their_columns() -> None:
    labels: list[object] = [None, *(label(n) for n in range(1, 12))]
    write_table(text=[text(n) for n in range(12)], brand=labels)
    call("init", "data", "--label", "brand")
    assert "has no `brand`" in call("check")


def test_why_nothing_can_be_held_out_is_said(folder: Path) -> None:
    table = frame(Path("data"))
    table.assign(image="0.png").to_csv("data/m.csv", index=False)
    assert "that share no images or texts: what shares them is held out together" in call("init", "data")


def test_a_refusal_leaves_nothing_behind() -> None:
    table = frame(Path("data"))
    shutil.rmtree("artifacts")
    for name in table.image:
        (Path("data/images") / name).write_bytes(b"no image")
    table.to_csv("data/m.csv", index=False)
    with pytest.raises(ManifestError, match="none of its 36 items can be used"):
        call("init", "data")
    assert [path.name for path in Path().iterdir()] == ["data"]


def test_images_are_found_by_ids_or_by_the_last_part_of_their_names(folder: Path) -> None:
    table = frame(Path("data"))
    for number in range(36):
        (folder / "data/images" / f"n{number}.png").write_bytes(picture(number + 3))
    table.drop(columns="image").to_csv("data/m.csv", index=False)
    call("init", "data/m.csv", "data/images")
    assert "36 kept" in call("check")
    assert json.loads(Path("items/items.jsonl").read_text().splitlines()[1])["image"] == ["n1.png"]
    for name in ("pack", "items"):
        shutil.rmtree(name)
    Path("run.yaml").unlink()
    table.assign(image="D:\\old\\" + table.image).to_csv("data/m.csv", index=False)
    assert "the last part of the names" in call("init", "data/m.csv")
    assert "36 kept" in call("check")


def test_names_without_extension_are_read() -> None:
    table = frame(Path("data"))
    table.assign(image=range(36)).to_csv("data/m.csv", index=False)
    said = call("init", "data")
    assert "image `image`" in said and "36 items, 3 labels" in said
    assert json.loads(Path("items/items.jsonl").read_text().splitlines()[1])["image"] == ["images/1.png"]


def test_an_image_column_without_images_is_named() -> None:
    table = frame(Path("data"))
    table.assign(image="none yet").to_csv("data/m.csv", index=False)
    assert "not read: `image`, as no images have its values as names" in call("init", "data")


def test_a_wrong_image_folder_is_named() -> None:
    make_lost_images(Path("data"))
    Path("other").mkdir()
    with pytest.raises(ManifestError, match="none of 36 images was found: other is not their folder"):
        call("init", "data", "other")


def test_what_cannot_be_used_is_counted() -> None:
    table = frame(Path("data"))
    Path("data/images/4.png").unlink()
    table.loc[5, "label"] = None
    pd.concat([table, table[:2]]).to_csv("data/m.csv", index=False)
    said = call("init", "data")
    assert "38 items, 3 labels" in said
    assert "34 usable, 4 not: duplicate id 2, image missing 1, missing label 1" in said


def make_unlabelled(data: Path) -> None:
    frame(data).drop(columns="label").to_csv(data / "m.csv", index=False)


def make_lost_images(data: Path) -> None:
    make_csv(data)
    shutil.rmtree(data / "images")


def make_base64(data: Path) -> None:
    packed = [base64.b64encode(picture(number)).decode() for number in range(36)]
    frame(data).assign(image=packed).to_csv(data / "m.csv", index=False)


def make_several_labels(data: Path) -> None:
    frame(data).assign(label=[["cat", "dog"]] * 36).to_json(data / "m.jsonl", orient="records", lines=True)


def make_text(name: str, content: str) -> Callable[[Path], None]:
    def make(data: Path) -> None:
        data.mkdir()
        (data / name).write_text(content)

    return make


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "data: contains no items"),
        (make_text("m.csv", ""), "m.csv: contains no items"),
        (make_text("m.json", "[]"), "m.json: contains no items"),
        (make_text("m.json", "[1"), "not JSON"),
        (make_text("m.parquet", "PAR1"), "m.parquet: not "),
        (make_text("m.csv", "id;text;label\n1;a;b\n"), "separated by ';'"),
        (make_unlabelled, "no column has labels; the columns are `id`, `text`, `image`; name it with --label"),
        (make_base64, "`image` has images in base64; save each as a file"),
        (make_several_labels, "36 of 36 items have several labels in `label`, such as .'cat', 'dog'.; .* one label"),
        (make_text("m.csv", "0.png,cat\n1.png,dog\n2.png,cat\n"), "the first row is an item \\(`0.png`\\)"),
        (make_text("m.csv", "good food,cat\nbad,dog\nworse,cat\nugly,cat\n"), "the first row is an item \\(`cat`\\)"),
        (make_lost_images, "`0.png`: no such file .* give their folder as second argument"),
        (lambda data: None, "data: no such file or folder"),
    ],
)
def test_unusable_data_are_explained_and_nothing_is_written(make: Callable[[Path], None], says: str) -> None:
    make(Path("data"))
    with pytest.raises(ManifestError, match=says):
        call("init", "data")
    assert {path.name for path in Path().iterdir()} <= {"data", "artifacts"}


def test_labels_of_any_spelling_are_kept(folder: Path) -> None:
    odd = ['a: "b" #c\\d', "- x\ty", "{{ 标签 }}", "none of these", "1.50", "true", "null", "👍"]
    Path("data").mkdir()
    rows: list[object] = [{"id": n, "text": f"text {n} of many", "label": odd[n % len(odd)]} for n in range(64)]
    write_json(Path("data/m.json"), rows)
    call("init", "data")
    assert sorted(list_labels(read_pack())) == sorted(odd) and read_pack().neither is None
    assert "64 kept" in call("check")


def test_bytes_that_are_no_text_raise_no_error_of_python() -> None:
    Path("data").mkdir()
    lines = "".join(f"{n},text {n} of many,{label(n)}\n" for n in range(30)).encode()
    Path("data/m.csv").write_bytes(b"id,text,label\n" + lines + b"31,bad \xff,cat\n32,text,\xfe\n")
    try:
        assert "30 usable, 2 not: not utf8 2" in call("init", "data")
    except LabelstillError as error:
        pytest.fail(str(error))
