"""`write_exports` as a whole: files, subsets, provenance, what is left out, images' names, and what stays untouched."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image, ImageOps
from pydantic import ValidationError

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.exports import write_exports
from tasks.dataset.export.labels import write_predictions
from tasks.dataset.settings import ExportSpec, Format
from tasks.items.pixels import render_pixels
from tasks.media import ImageRef
from tasks.records import Example, Origin, Subset
from tests.tasks.dataset.export.making import ask, make_example

ALL = tuple(Format)
PAIRS = (Format.TRL_PAIRS, Format.SWIFT_PAIRS, Format.LLAMAFACTORY_PAIRS)
"""Formats with a row per pair of answers; the examples here have none."""


def draw_picture(folder: Path, name: str, colour: str = "red") -> ImageRef:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (56, 84), colour).save(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return ImageRef(path=str(file), sha256=digest, width=56, height=84)


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture
def mixed(tmp_path: Path) -> list[Example]:
    """Text, one image, three images, a system turn, a mixed-in example; one of them for validation."""
    a, b = draw_picture(tmp_path / "in", "a.png"), draw_picture(tmp_path / "in", "b.PNG", "blue")
    return [
        ask("文字", sample_id="text"),
        ask("<image>一", sample_id="one", images=(a,), subset=Subset.VALIDATION, label="甲,乙"),
        ask("<image>三<image><image>", sample_id="three", images=(a, b, a), origin=Origin.PSEUDO, source="pool"),
        make_example(("system", "规则"), ("user", "问"), ("assistant", "答"), sample_id="system"),
        ask("通用", sample_id="mixed", origin=Origin.MIX, label=""),
    ]


def test_every_format_has_every_example_or_a_reason_why_not(mixed: list[Example], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".exports" / "swift").mkdir(parents=True)  # left by a run that was killed
    made = write_exports(out, "set", mixed, ExportSpec(formats=ALL))
    fewer = {Format.QWEN: 4, Format.VISION_START: 1, Format.LABELS: 4}
    assert made.rows == dict.fromkeys(ALL, 5) | fewer | dict.fromkeys(PAIRS, 0)
    left = {(x.id, x.format): x.reason for x in made.left_out}
    assert left == {
        ("system", Format.QWEN): LeftOutReason.SYSTEM_TURN,
        **{(i, Format.VISION_START): LeftOutReason.NOT_ONE_IMAGE for i in ("text", "three", "system", "mixed")},
        ("mixed", Format.LABELS): LeftOutReason.NO_LABEL,
    }
    told = {(row["id"], row["format"]): row["reason"] for row in read_lines(out / "left_out.jsonl")}
    assert told == {key: str(reason) for key, reason in left.items()}
    assert set(made.files) == {file for file in out.rglob("*") if file.is_file()}
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_rows_and_provenance_have_the_same_order_in_each_subset(mixed: list[Example], tmp_path: Path) -> None:
    write_exports(tmp_path / "out", "set", mixed, ExportSpec(formats=(Format.SWIFT, Format.LLAMAFACTORY)))
    for folder, suffix, read in (
        ("swift", "jsonl", read_lines),
        ("llamafactory", "json", lambda f: json.loads(f.read_text())),
    ):
        where = tmp_path / "out" / folder
        rows = {
            s: read(where / f"set{'' if s == 'train' else '_validation'}.{suffix}") for s in ("train", "validation")
        }
        assert [len(rows[s]) for s in ("train", "validation")] == [4, 1]
        for origin, subject in zip(read_lines(where / "provenance.jsonl"), mixed, strict=True):
            assert origin == {
                "id": subject.sample_id,
                "source": subject.source,
                "row": origin["row"],
                "subset": subject.subset,
                "origin": subject.origin,
                "label": subject.label,
            }
            row = rows[origin["subset"]][origin["row"]]
            assert [m["content"] for m in row["messages"]] == [m.content for m in subject.messages]
            assert row["images"] == [i.path for i in subject.images]


def test_provenance_distinguishes_equal_ids_by_their_manifest(tmp_path: Path) -> None:
    both = [ask(origin=Origin.REVIEW, source=f"/data/{name}.json") for name in ("train", "pool")]
    write_exports(tmp_path, "set", both, ExportSpec(formats=(Format.SWIFT,)))
    rows = read_lines(tmp_path / "swift" / "provenance.jsonl")
    assert [(row["id"], row["source"]) for row in rows] == [("item-7", e.source) for e in both]


def test_examples_that_llamafactory_would_cut_are_left_out_of_that_format_only(tmp_path: Path) -> None:
    formats = (Format.LLAMAFACTORY, Format.SWIFT)
    short, long = (ask("问" * n, sample_id=f"{n}") for n in (900, 1100))
    made = write_exports(tmp_path, "set", [short, long, short], ExportSpec(formats=formats, max_tokens=512))
    assert made.rows == {Format.LLAMAFACTORY: 2, Format.SWIFT: 3}
    (left,) = made.left_out
    assert (left.id, left.format, left.reason) == ("1100", Format.LLAMAFACTORY, LeftOutReason.TOO_LONG)
    assert "550 tokens" in left.detail and "512 are allowed" in left.detail
    # what is held against is what the trainer is told
    for kind in ("lora", "full"):
        assert yaml.safe_load((tmp_path / "llamafactory" / f"train_{kind}.yaml").read_text())["cutoff_len"] == 512
    assert [row["id"] for row in read_lines(tmp_path / "llamafactory" / "provenance.jsonl")] == ["900", "900"]


def test_ready_configurations_name_the_validation_set_if_there_is_one(mixed: list[Example], tmp_path: Path) -> None:
    for name, examples in (("with", mixed), ("without", mixed[2:])):
        out = tmp_path / name
        write_exports(out, "set", examples, ExportSpec(base="Qwen/Qwen2-VL-2B-Instruct", max_pixels=100352))
        ours = {f: yaml.safe_load((out / f / "train_lora.yaml").read_text("utf-8")) for f in ("llamafactory", "swift")}
        information = json.loads((out / "llamafactory" / "dataset_info.json").read_text("utf-8"))
        if name == "with":
            assert ours["llamafactory"]["eval_dataset"] == "set_validation"
            assert ours["swift"]["val_dataset"] == str(out / "swift" / "set_validation.jsonl")
        else:
            assert "eval_dataset" not in ours["llamafactory"] and "val_dataset" not in ours["swift"]
        assert set(information) == ({"set", "set_validation"} if name == "with" else {"set"})
        assert all((out / "llamafactory" / entry["file_name"]).is_file() for entry in information.values())
        assert ours["swift"]["ENV"] == {"MIN_PIXELS": 3136, "MAX_PIXELS": 100352}
        assert ours["llamafactory"]["image_max_pixels"] == 100352
        assert ours["llamafactory"]["model_name_or_path"] == ours["swift"]["model"] == "Qwen/Qwen2-VL-2B-Instruct"


def test_ready_configurations_name_existing_files_and_train_outside(mixed: list[Example], tmp_path: Path) -> None:
    write_exports(tmp_path, "set", mixed, ExportSpec())
    merges = {"llamafactory": ("adapter_name_or_path", "export_dir"), "swift": ("adapters", "output_dir")}
    for trainer, (adapter, merged) in merges.items():
        folder = tmp_path / trainer
        texts = {
            kind: (folder / f"{kind}.yaml").read_text("utf-8") for kind in ("train_lora", "train_full", "merge_lora")
        }
        assert not [text for text in texts.values() if "${" in text or "None" in text]
        assert all(str(folder / f"{kind}.yaml") in text.splitlines()[0] for kind, text in texts.items())
        config = {kind: yaml.safe_load(text) for kind, text in texts.items()}
        assert Path(config["train_full"]["deepspeed"]).parent == folder and "deepspeed" not in config["train_lora"]
        assert Path(config["train_full"]["deepspeed"]).is_file()
        trained = Path(config["train_lora"]["output_dir"])
        assert trained.parent == tmp_path / "trained" and str(config["merge_lora"][adapter]).startswith(str(trained))
        # without `strict` ms-swift leaves rows out in silence
        assert trainer != "swift" or config["train_lora"]["strict"] is config["train_full"]["strict"] is True
        assert config["merge_lora"][merged] == str(tmp_path / "trained" / f"{trainer}_lora_merged")


@pytest.mark.parametrize("how", ["relative", "copy"])
def test_images_may_be_named_relative_to_the_formats_folder(how: Any, mixed: list[Example], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_exports(out, "set", mixed, ExportSpec(image_paths=how, formats=(Format.SWIFT, Format.QWEN)))
    (row,) = [row for row in read_lines(out / "swift" / "set.jsonl") if row["images"]]
    assert not [name for name in row["images"] if os.path.isabs(name)]
    shown = [(out / "swift" / name).read_bytes() for name in row["images"]]
    assert shown == [Path(i.path).read_bytes() for i in mixed[2].images]
    assert yaml.safe_load((out / "swift" / "train_lora.yaml").read_text())["ENV"]["ROOT_IMAGE_DIR"] == str(
        out / "swift"
    )
    if how == "copy":
        names = sorted(i.sha256 + ".png" for i in mixed[2].images[:2])
        assert sorted(p.name for p in (out / "images").iterdir()) == names
        write_exports(out, "set", mixed, ExportSpec(formats=(Format.SWIFT,)))
        assert not (out / "images").exists()


def test_a_missing_image_is_reported_where_it_is_needed(mixed: list[Example], tmp_path: Path) -> None:
    Path(mixed[1].images[0].path).unlink()
    spec = ExportSpec(image_paths="copy", formats=(Format.SWIFT, Format.TRL, Format.LABELS))
    made = write_exports(tmp_path / "out", "set", mixed[:3], spec)
    assert made.rows == {Format.SWIFT: 1, Format.TRL: 1, Format.LABELS: 3}
    assert {(x.id, x.format) for x in made.left_out} == {
        (i, f) for i in ("one", "three") for f in (Format.SWIFT, Format.TRL)
    }
    assert {x.reason for x in made.left_out} == {LeftOutReason.IMAGE_UNREADABLE}


def test_a_photo_with_an_exif_rotation_is_copied_upright(tmp_path: Path) -> None:
    sideways = Image.new("RGB", (84, 56), "red")
    sideways.paste((0, 0, 255), (0, 0, 42, 56))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    sideways.save(tmp_path / "photo.jpg", exif=exif)
    photo = ImageRef(path=str(tmp_path / "photo.jpg"), sha256="f" * 64, width=56, height=84)
    spec = ExportSpec(image_paths="copy", formats=(Format.SWIFT,))
    write_exports(tmp_path / "out", "set", [ask("<image>", images=(photo,))], spec)
    (row,) = read_lines(tmp_path / "out" / "swift" / "set.jsonl")
    with Image.open(tmp_path / "out" / "swift" / row["images"][0]) as shown:
        assert shown.size == (56, 84) and shown.getexif().get(0x0112, 1) == 1
        top, bottom = shown.getpixel((28, 10)), shown.getpixel((28, 74))
    assert isinstance(top, tuple) and isinstance(bottom, tuple) and top[2] > 200 and bottom[0] > 200


def save_screen(folder: Path, name: str, picture: Image.Image, **how: Any) -> ImageRef:
    picture.save(folder / name, **how)
    upright = ImageOps.exif_transpose(Image.open(folder / name))
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return ImageRef(path=str(folder / name), sha256=digest, width=upright.width, height=upright.height)


@pytest.fixture
def odd_images(tmp_path: Path) -> list[ImageRef]:
    """Files of which `Image.open(path).convert("RGB")` does not show what models see, and two of which it does."""
    ramp = Image.linear_gradient("L").resize((56, 84))
    photo = Image.merge("RGB", (ramp, ramp.rotate(180), ramp))
    clear = photo.convert("RGBA")
    clear.putalpha(ramp)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257)
    return [
        save_screen(tmp_path, "photo.jpg", photo, exif=exif, quality=95),
        save_screen(tmp_path, "photo.png", photo, exif=exif),
        save_screen(tmp_path, "clear.png", clear),
        save_screen(tmp_path, "clear.webp", clear, lossless=True),
        save_screen(tmp_path, "deep.png", deep),
        save_screen(tmp_path, "cmyk.jpg", photo.convert("CMYK")),
        save_screen(tmp_path, "plain.png", photo),
    ]


def measure_difference(shown: Image.Image, image: ImageRef) -> float:
    with Image.open(image.path) as source:
        seen = np.asarray(render_pixels(source), np.float32)
    loaded = np.asarray(shown.convert("RGB"), np.float32)
    assert loaded.shape == seen.shape, image.path
    return float(np.abs(loaded - seen).mean())


@pytest.mark.parametrize("how", ["absolute", "relative", "copy"])
def test_trainers_load_what_models_saw(how: Any, odd_images: list[ImageRef], tmp_path: Path) -> None:
    formats = (Format.SWIFT, Format.LLAMAFACTORY, Format.QWEN, Format.TRL)
    examples = [ask("<image>", images=(image,)) for image in odd_images]
    write_exports(tmp_path / "out", "set", examples, ExportSpec(image_paths=how, formats=formats))
    swift = [row["images"][0] for row in read_lines(tmp_path / "out" / "swift" / "set.jsonl")]
    qwen = [row["image"] for row in json.loads((tmp_path / "out" / "qwen" / "set.json").read_text("utf-8"))]
    factory = json.loads((tmp_path / "out" / "llamafactory" / "set.json").read_text("utf-8"))
    assert swift == qwen == [row["images"][0] for row in factory]
    for name, image in zip(swift, odd_images, strict=True):
        with Image.open(tmp_path / "out" / "swift" / name) as shown:
            assert measure_difference(shown, image) <= 3
    rows = pq.read_table(tmp_path / "out" / "trl" / "set.parquet").column("images").to_pylist()
    for (row,), image in zip(rows, odd_images, strict=True):
        assert measure_difference(Image.open(io.BytesIO(row["bytes"])), image) <= 3
    if how != "copy":
        assert len(list((tmp_path / "out" / "images").iterdir())) == 5
        assert (tmp_path / "out" / "swift" / swift[-1]).samefile(odd_images[-1].path)


def test_nothing_changes_when_the_examples_raise_an_error(mixed: list[Example], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_exports(out, "set", mixed[:1], ExportSpec())
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}

    def raise_midway() -> Iterator[Example]:
        yield mixed[2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_exports(out, "set", raise_midway(), ExportSpec(formats=ALL, image_paths="copy"))
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_a_new_export_replaces_the_old_one_and_nothing_else(mixed: list[Example], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_exports(out, "set", mixed, ExportSpec())
    for other in ("trained/swift_lora/weights", "kept.parquet"):
        (out / other).parent.mkdir(parents=True, exist_ok=True)
        (out / other).write_text("stays")
    write_exports(out, "set", mixed[2:], ExportSpec(formats=(Format.SWIFT,)))
    assert sorted(p.name for p in out.iterdir()) == ["kept.parquet", "left_out.jsonl", "swift", "trained"]
    assert (out / "trained/swift_lora/weights").read_text() == "stays"
    # the former set's validation part would else be taken for this one's
    assert not (out / "swift" / "set_validation.jsonl").exists()


def test_labels_and_predictions_are_plain_csv(mixed: list[Example], tmp_path: Path) -> None:
    write_exports(tmp_path, "set", mixed, ExportSpec(formats=(Format.LABELS,)))
    with (tmp_path / "labels" / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == read_lines(tmp_path / "labels" / "labels.jsonl")
    assert rows[1] == {"id": "one", "label": "甲,乙", "origin": "given", "subset": "validation", "source": "f"}
    write_predictions(tmp_path / "p.csv", [("a", "甲"), ('b"', "乙,\n")])
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["id", "predict"], ["a", "甲"], ['b"', "乙,\n"]]


def test_an_empty_set_is_written_too(tmp_path: Path) -> None:
    made = write_exports(tmp_path, "set", [], ExportSpec(formats=ALL))
    assert set(made.rows.values()) == {0} and json.loads((tmp_path / "qwen" / "set.json").read_text()) == []


def test_an_unknown_format_or_key_is_an_error() -> None:
    twice = {"formats": ("trl", "trl")}
    for wrong in ({"formats": ("parquet",)}, twice, {"image_path": "copy"}, {"image_paths": "moved"}):
        with pytest.raises(ValidationError):
            ExportSpec.model_validate(wrong)
