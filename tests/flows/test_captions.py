"""A pack without a label set in a whole run: items are read, merged and exported."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from flows.commands.check import check
from flows.config import load_config
from tasks.demo.dataset import draw_items
from tasks.errors import PackError
from tasks.records import Example, Origin
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import read_record
from tests.conftest import PrefectServer

TEACHER = {"engine": "scripted", "model": "scripted:hash"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of 20 of the demo's images, captioned in a CSV, and one row whose image is not there."""
    folder = tmp_path_factory.mktemp("captions")
    (folder / "images").mkdir()
    drawn = [item for item in draw_items(60, seed=5) if len(item.images) == 1][:20]
    assert len(drawn) == 20
    rows = [{"image_path": f"{item.id}.png", "caption": f"第{n}张：{item.reason}"} for n, item in enumerate(drawn)]
    for item in drawn:
        item.images[0].save(folder / "images" / f"{item.id}.png")
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["image_path", "caption"])
        writer.writeheader()
        writer.writerows([*rows, {"image_path": "gone.png", "caption": "没有这张图"}])
    return write_config(folder)


def write_config(folder: Path, **more: object) -> Path:
    source = {"manifest": str(folder / "captions.csv"), "images": str(folder / "images")}
    common = {"output": str(folder / "run"), "ledger": str(folder / "ledger.sqlite"), "images": str(folder / "cache")}
    file = folder / f"run{len(more)}.yaml"
    file.write_text(yaml.safe_dump({"pack": "captions", "labelled": source, **common, **more}), encoding="utf-8")
    return file


def test_captions_are_read_merged_and_exported(prefect_server: PrefectServer, config: Path) -> None:
    from flows.distill import distill

    loaded = load_config(config)
    distill(loaded)
    with (config.parent / "captions.csv").open(encoding="utf-8", newline="") as file:
        captions = {row["image_path"]: row["caption"] for row in csv.DictReader(file)}
    read = read_record(loaded.output / "samples" / "labelled")
    assert read and (read.read, read.kept, read.drops) == (21, 20, {"image_missing": 1})
    examples = read_rows(loaded.output / "emit" / "kept.parquet", Example)
    assert {e.sample_id: e.label for e in examples} == {k: v for k, v in captions.items() if k != "gone.png"}
    assert {(e.origin, e.reason) for e in examples} == {(Origin.GIVEN, "")}
    for e in examples:
        assert [m.role for m in e.messages] == ["user", "assistant"]
        assert e.messages[0].content.startswith("<image>\n") and e.messages[1].content == e.label
    rows = json.loads((loaded.output / "emit" / "llamafactory" / "labelstill.json").read_text(encoding="utf-8"))
    assert [row["messages"][-1]["content"] for row in rows] == [e.label for e in examples]
    assert all(Path(row["images"][0]).name in captions for row in rows)


@pytest.mark.parametrize("key", ["generator", "teacher"])
def test_stages_that_need_labels_are_refused(prefect_server: PrefectServer, config: Path, key: str) -> None:
    from flows.distill import distill

    pool = {"manifest": str(config.parent / "captions.csv"), "images": str(config.parent / "images")}
    loaded = load_config(write_config(config.parent, unlabelled=pool, **{key: TEACHER}))
    for run in (distill, check):
        with pytest.raises(PackError, match=r"pack\.yaml: free_text: \w+ needs a label set.*\(emit\) work without"):
            run(loaded)


def test_correction_is_refused_too(prefect_server: PrefectServer, config: Path) -> None:
    from flows.config import CorrectionConfig
    from flows.correction import correction

    base = load_config(config)
    assert base.labelled
    settings = {name: getattr(base, name) for name in type(base).model_fields if name in CorrectionConfig.model_fields}
    with pytest.raises(PackError, match="correction needs a label set"):
        correction(CorrectionConfig.model_validate({**settings, "teacher": TEACHER, "student": {"kind": "probe"}}))


def test_check_reads_captions(config: Path) -> None:
    report = check(load_config(config))
    assert (report.usable, report.count_reasons(), report.estimates) == (True, {"image_missing": 1}, ())
