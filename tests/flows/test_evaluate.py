"""Real LoRA students on an untrained base: what is taught, asked, measured and written, not how good they get."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.config import DistillConfig, EvaluateConfig
from flows.settings import EvaluateSettings, PseudoLabelSettings, SourceConfig
from tasks.errors import ConfigError
from tasks.records import Example
from tasks.report.evaluation import Report
from tasks.scores import Scored
from tasks.stages import read_record, read_rows
from tasks.variants import Variant
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config


@pytest.fixture(scope="module")
def evaluated(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> EvaluateConfig:
    from flows.distill import distill
    from flows.evaluate import evaluate

    config = small_config(tmp_path_factory.mktemp("evaluated"), items=40)
    data = next((config.output.parent / "shared").glob("data*"))
    held_out = SourceConfig(manifest=data / "test" / "x.json", images=data / "test" / "images")
    settings = EvaluateSettings(seeds=2, steps=2, parallel=2, truth=data / "truth.jsonl", variants=VARIANTS)
    believing = PseudoLabelSettings(target_precision=0.001, assurance=0.5)  # the scripted teacher is right by chance
    more = {"evaluation": held_out, "test": held_out, "evaluate": settings, "pseudo_labels": believing}
    whole = DistillConfig.model_validate(config.model_dump() | more)
    distill(whole)
    wanted = whole.evaluate_config()
    evaluate(wanted)
    return wanted


VARIANTS = (Variant.RAW, Variant.ALL, Variant.PHASED, Variant.CEILING)


@pytest.mark.timeout(600)
def test_each_variant_is_measured_on_every_held_out_item_with_every_seed(evaluated: EvaluateConfig) -> None:
    folder = evaluated.output / "evaluate"
    rows = read_rows(folder / "kept.parquet", Scored)
    held_out = {r.sample_id for r in rows}
    assert len(held_out) == 20
    expected = {(v, seed, i) for v in VARIANTS for seed in (0, 1) for i in held_out}
    assert {(r.variant, r.seed, r.sample_id) for r in rows} == expected
    assert len(rows) == len(expected)
    truth = {x["id"]: x["label"] for x in map(json.loads, Path(str(evaluated.evaluate.truth)).read_text().splitlines())}
    assert all(r.truth == truth[r.sample_id] for r in rows)
    report = Report.model_validate_json((folder / "scores.json").read_bytes())
    assert [s.variant for s in report.scores] == list(VARIANTS)
    record = read_record(folder)
    assert record is not None
    assert record.figures["accuracy of raw"] == report.scores[0].accuracy.value


def test_students_are_taught_the_same_number_of_steps(evaluated: EvaluateConfig) -> None:
    facts = [json.loads(f.read_bytes()) for f in (evaluated.output / "evaluate" / "students").glob("*/student.json")]
    alone = [f for f in facts if not f["start"]]
    assert {f["steps"] for f in alone} <= {1, 2}
    seconds = [f for f in facts if f["start"]]
    assert len(seconds) == 2
    emitted = read_rows(evaluated.output / "emit" / "kept.parquet", Example)
    pseudo = {e.sample_id for e in emitted if e.origin == "pseudo"}
    assert all(set(f["trained_on"]) <= pseudo for f in seconds)
    seen = {i for f in facts for i in f["trained_on"]}
    assert not seen & {r.sample_id for r in read_rows(evaluated.output / "evaluate" / "kept.parquet", Scored)}


def test_the_test_set_is_predicted_to_a_csv_file(evaluated: EvaluateConfig) -> None:
    with (evaluated.output / "evaluate" / "predictions.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 20
    assert set(rows[0]) == {"id", "predict"}
    assert all(row["predict"] for row in rows)


def test_a_second_evaluation_is_reused_and_a_changed_one_trains_only_what_is_new(evaluated: EvaluateConfig) -> None:
    from flows.evaluate import evaluate

    students = evaluated.output / "evaluate" / "students"
    before = {p: p.stat().st_mtime_ns for p in students.glob("*/student.json")}
    first = read_record(evaluated.output / "evaluate")
    assert first is not None
    assert evaluate(evaluated).finished_at == first.finished_at
    fewer = evaluated.model_copy(
        update={"evaluate": evaluated.evaluate.model_copy(update={"variants": (Variant.RAW, Variant.ALL)})}
    )
    record = evaluate(fewer)
    assert record.costs.asked == 0
    assert before == {p: p.stat().st_mtime_ns for p in students.glob("*/student.json")}
    evaluate(evaluated)


def test_compare_prints_both_runs(evaluated: EvaluateConfig) -> None:
    from flows.cli import app

    result = CliRunner().invoke(app, ["compare", str(evaluated.output), str(evaluated.output)])
    assert result.exit_code == 0, result.output
    assert "20 held-out items in common" in result.output
    assert "+0.0" in result.output


def test_what_is_missing_is_named(evaluated: EvaluateConfig, tmp_path: Path) -> None:
    from flows.cli import app
    from flows.evaluate import evaluate

    result = CliRunner().invoke(app, ["compare", str(tmp_path), str(evaluated.output)])
    assert isinstance(result.exception, ConfigError)
    assert "labelstill evaluate" in str(result.exception)
    with pytest.raises(ConfigError, match="labelstill run"):
        evaluate(evaluated.model_copy(update={"output": tmp_path / "empty"}))
    unlabelled = evaluated.evaluate.model_copy(update={"truth": None})
    with pytest.raises(ConfigError, match="no held-out item has a label"):
        evaluate(evaluated.model_copy(update={"evaluate": unlabelled}))
    without = small_config(tmp_path, items=40)
    with pytest.raises(ConfigError, match="`evaluation`"):
        without.evaluate_config()
