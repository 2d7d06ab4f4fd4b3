"""The Parquet set as `datasets`, trl's helper and pyarrow see it."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image
from trl.data_utils import prepare_multimodal_messages

from tasks.dataset.export.exports import write_exports
from tasks.dataset.export.trl import SCHEMA
from tasks.dataset.settings import ExportSpec, Format
from tasks.media import ImageRef
from tasks.records import Example, Subset
from tests.tasks.dataset.export.making import ask, make_example


def draw_picture(folder: Path, colour: str) -> ImageRef:
    file = folder / f"{colour}.png"
    Image.new("RGB", (56, 84), colour).save(file)
    return ImageRef(path=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest(), width=56, height=84)


def load(folder: Path, examples: list[Example], name: str = "set") -> Dataset:
    write_exports(folder / "out", "set", examples, ExportSpec(formats=(Format.TRL,)))
    file = str(folder / "out" / "trl" / f"{name}.parquet")
    return load_dataset("parquet", data_files=file, split="train", cache_dir=str(folder / "cache"))


def test_images_and_texts_are_read_back_in_their_places(tmp_path: Path) -> None:
    red, blue = draw_picture(tmp_path, "red"), draw_picture(tmp_path, "blue")
    subject = make_example(
        ("system", "规则"),
        ("user", "<image><image>看"),
        ("assistant", "好<image>"),
        ("user", "再看<image>呢"),
        ("assistant", "答"),
        images=(red, blue, red),
    )
    text_only = ask("文字")
    rows = load(tmp_path, [text_only, subject])
    assert len(rows) == 2 and rows[0]["images"] == []
    row: Any = rows[1]
    assert [image.getpixel((0, 0)) for image in row["images"]] == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]
    assert row["completion"] == [{"role": "assistant", "content": [{"type": "text", "text": "答"}]}]
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user", "assistant", "user"]
    image = {"type": "image", "text": None}
    assert row["prompt"][1]["content"] == [image, image, {"type": "text", "text": "看"}]
    # with a string as content trl would put all images first
    (turn,) = prepare_multimodal_messages(row["prompt"][3:], images=row["images"][2:])
    assert [element["type"] for element in turn["content"]] == ["text", "image", "text"]


def test_the_schema_is_what_datasets_writes() -> None:
    turns = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
    shares = List({"label": Value("string"), "probability": Value("float64")})
    features = Features(
        {"prompt": turns, "completion": turns, "images": List(ImageFeature()), "label_probabilities": shares}
    )
    assert features.arrow_schema.equals(SCHEMA, check_metadata=True)


def test_image_bytes_are_unchanged(tmp_path: Path) -> None:
    red = draw_picture(tmp_path, "red")
    load(tmp_path, [ask("<image>", images=(red,))])
    (row,) = pq.read_table(tmp_path / "out" / "trl" / "set.parquet").to_pylist()
    assert row["images"] == [{"bytes": Path(red.path).read_bytes(), "path": "red.png"}]


def test_row_groups_are_small_and_lose_no_row(tmp_path: Path) -> None:
    texts = [f"问{i}" for i in range(600)]
    rows: Any = load(tmp_path, [ask(text) for text in texts])
    assert [row["prompt"][0]["content"][0]["text"] for row in rows] == texts
    assert pq.ParquetFile(tmp_path / "out" / "trl" / "set.parquet").num_row_groups == 3


def test_validation_rows_are_in_a_separate_file(tmp_path: Path) -> None:
    examples = [ask("a"), ask("b", subset=Subset.VALIDATION), ask("c", subset=Subset.VALIDATION)]
    assert len(load(tmp_path, examples, "set_validation")) == 2
    assert len(load(tmp_path, examples)) == 1
