import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from flows.config import DistillConfig
from tasks.records import Correction, Example
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import read_record
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config


@pytest.fixture(scope="module")
def finished_run(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> DistillConfig:
    from flows.distill import distill

    config = small_config(tmp_path_factory.mktemp("small"))
    distill(config)
    return config


def test_every_stage_leaves_its_three_files(finished_run: DistillConfig) -> None:
    for stage in ("samples/labelled", "samples/unlabelled", "rationales", "pseudo_labels", "correction", "emit"):
        folder = finished_run.output / stage
        record = read_record(folder)
        assert record is not None
        assert record.kept == len(pd.read_parquet(folder / "kept.parquet"))
        assert record.dropped == len(pd.read_parquet(folder / "dropped.parquet"))
        assert record.read == record.kept + record.dropped == sum(record.drops.values()) + record.kept
    broken = read_record(finished_run.output / "samples/labelled")
    assert broken is not None
    assert broken.read == 66
    assert broken.kept == 60


def test_llamafactory_file_holds_the_kept_examples(finished_run: DistillConfig) -> None:
    folder = finished_run.output / "emit"
    examples = read_rows(folder / "kept.parquet", Example)
    rows = json.loads((folder / "llamafactory" / "labelstill.json").read_text("utf-8"))
    assert len(rows) == len(examples) > 0
    for row, example in zip(rows, examples, strict=True):
        assert row["images"] == [image.path for image in example.images]
        assert sum(m["content"].count("<image>") for m in row["messages"]) == len(row["images"])
        assert json.loads(row["messages"][-1]["content"])["所属类别"] == example.label


def test_predictions_are_out_of_fold(finished_run: DistillConfig) -> None:
    stage = finished_run.output / "correction"
    folds = json.loads((stage / "folds.json").read_text("utf-8"))["fold_of"]
    trained_on = {}
    for file in (stage / "students").glob("*/student.json"):
        facts = json.loads(file.read_text("utf-8"))
        trained_on[facts["fold"]] = set(facts["trained_on"])
    decisions = read_rows(stage / "kept.parquet", Correction)
    assert len(decisions) == 60
    assert {d.sample_id: d.fold for d in decisions if d.fold is not None} == folds
    assert len(folds) > 50  # the others are of classes with fewer items than folds, and are predicted by nobody
    for decision in decisions:
        if decision.fold is None:
            assert decision.predicted is None
        else:
            assert decision.sample_id not in trained_on[decision.fold]
    assert any(d.reviewed for d in decisions)


def test_unchanged_rerun_asks_nothing_and_keeps_the_records(finished_run: DistillConfig) -> None:
    from flows.distill import distill

    stages = ("rationales", "pseudo_labels", "correction", "emit")
    before = {stage: (finished_run.output / stage / "record.json").read_bytes() for stage in stages}
    distill(finished_run)
    assert before == {stage: (finished_run.output / stage / "record.json").read_bytes() for stage in stages}


def test_a_changed_gate_asks_nothing_again(finished_run: DistillConfig) -> None:
    from flows.distill import distill

    settings = finished_run.correction.model_copy(update={"gate_level": 0.9})
    records = distill(finished_run.model_copy(update={"correction": settings}))
    assert records["correction"].costs.asked == 0
    assert records["correction"].costs.reused > 60
    # later tests of this module expect the first configuration's files
    distill(finished_run)


def test_stages_left_out_are_skipped(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from flows.distill import distill

    config = small_config(tmp_path).model_copy(update={"student": None, "unlabelled": None})
    records = distill(config)
    assert set(records) == {"rationales", "emit"}
    assert records["emit"].read == 60


def test_a_missing_server_gives_one_line(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    file = tmp_path / "c.yaml"
    teacher = {"engine": "server", "model": "m", "base_urls": ["http://127.0.0.1:9/v1"]}
    assert config.unlabelled
    content = {
        "pack": "demo",
        "unlabelled": config.unlabelled.model_dump(mode="json"),
        "teacher": teacher,
        "output": str(tmp_path / "out"),
        "ledger": str(tmp_path / "ledger.sqlite"),
        "images": str(tmp_path / "images"),
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "flows.commands.main", "run", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no answer from any address" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr.splitlines()[-1]
