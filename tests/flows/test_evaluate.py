"""Evaluation with real LoRA students on an untrained base: what is trained, asked and written, not how good it is."""

import csv
import json
import logging
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.config import CommonConfig, DistillConfig, EmitConfig, EvaluateConfig
from tasks.errors import ConfigError
from tasks.evaluation.scores import Scored
from tasks.evaluation.settings import EvaluateSettings
from tasks.evaluation.table import Report
from tasks.evaluation.variants import FROM_FOLDS, Variant
from tasks.items.settings import SourceConfig
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.records import Dropped, Example, Sample
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import read_record
from tests.conftest import PrefectServer
from tests.flows.small_run import dump_config, small_config


class Warnings(logging.Handler):
    """What flows warn of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(scope="module")
def warnings() -> list[str]:
    """What the evaluation of `evaluated` warned of."""
    return []


@pytest.fixture(scope="module")
def evaluated(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory, warnings: list[str]
) -> EvaluateConfig:
    from flows.distill import distill
    from flows.evaluate import evaluate

    config = small_config(tmp_path_factory.mktemp("evaluated"), items=40)
    data = next((config.output.parent / "shared").glob("data*"))
    held_out = SourceConfig(manifest=data / "test" / "x.json", images=data / "test" / "images")
    nameless = {"instruction": "an item without an id", "image": []}
    rows = [nameless, *json.loads(held_out.manifest.read_text("utf-8"))]
    (config.output.parent / "test.json").write_text(json.dumps(rows), "utf-8")
    test = held_out.model_copy(update={"manifest": config.output.parent / "test.json"})
    settings = EvaluateSettings(seeds=2, truth=data / "truth.jsonl", variants=VARIANTS)
    believing = PseudoLabelSettings(target_precision=0.001)  # the scripted teacher is right by chance
    more = {"evaluation": held_out, "test": test, "evaluate": settings, "pseudo_labels": believing}
    more["student"] = config.student and config.student.model_copy(update={"steps": 2, "parallel": 2})
    whole = DistillConfig.model_validate(dump_config(config) | more)
    distill(whole)
    wanted = whole.make_evaluate_config()
    # only now: with its first run, Prefect takes other handlers away
    logger, handler = logging.getLogger("prefect.flow_runs"), Warnings()
    logger.addHandler(handler)
    evaluate(wanted)
    logger.removeHandler(handler)
    warnings += handler.messages
    return wanted


TRAINED = (Variant.RAW, Variant.ALL, Variant.PHASED, Variant.CEILING)
VARIANTS = (*TRAINED, Variant.ENSEMBLE, Variant.FUSED)


@pytest.mark.timeout(600)
def test_each_variant_is_measured_on_every_held_out_item_with_every_seed(evaluated: EvaluateConfig) -> None:
    folder = evaluated.output / "evaluate"
    rows = read_rows(folder / "kept.parquet", Scored)
    held_out = {r.sample_id for r in rows}
    assert len(held_out) == 20
    expected = {(v, seed, i) for v in TRAINED for seed in (0, 1) for i in held_out}
    expected |= {(v, 0, i) for v in FROM_FOLDS for i in held_out}  # the folds were split once
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
    every = [json.loads(f.read_bytes()) for f in (evaluated.output / "evaluate" / "students").glob("*/student.json")]
    facts = [f for f in every if "fused" not in f]
    alone = [f for f in facts if not f["start"]]
    assert {f["steps"] for f in alone} <= {1, 2}
    seconds = [f for f in facts if f["start"]]
    assert len(seconds) == 2
    emitted = read_rows(evaluated.output / "emit" / "kept.parquet", Example)
    pseudo = {e.sample_id for e in emitted if e.origin == "pseudo"}
    assert all(set(f["trained_on"]) <= pseudo for f in seconds)
    seen = {i for f in facts for i in f["trained_on"]}
    assert not seen & {r.sample_id for r in read_rows(evaluated.output / "evaluate" / "kept.parquet", Scored)}


def test_the_fold_students_are_fused_not_trained_again(evaluated: EvaluateConfig) -> None:
    folds = {f.parent.name for f in (evaluated.output / "correction" / "students").glob("*/student.json")}
    assert evaluated.student.folds == len(folds)
    fused = json.loads((evaluated.output / "student" / "student.json").read_bytes())
    assert set(fused["fused"]) == folds
    assert (evaluated.output / "student" / "adapter_model.safetensors").stat().st_size > 1000
    assert "`fused`" in (evaluated.output / "student" / "README.md").read_text("utf-8")


def test_every_item_of_the_test_set_that_has_an_id_is_predicted_to_a_csv_file(
    evaluated: EvaluateConfig, warnings: list[str]
) -> None:
    with (evaluated.output / "evaluate" / "predictions.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert evaluated.test is not None
    items = json.loads(evaluated.test.manifest.read_text("utf-8"))
    refused = {d.sample_id for d in read_rows(_read_test_items(evaluated) / "dropped.parquet", Dropped)}
    sound = {s.id for s in read_rows(_read_test_items(evaluated) / "kept.parquet", Sample)}
    # the second row of a repeated id is used, as the first one's image is missing
    assert len(sound) == 21 and len(refused - sound) == 5
    ids = {str(item["id"]) for item in items if "id" in item}
    assert sorted(row["id"] for row in rows) == sorted(ids)
    labels = Counter(e.label for e in read_rows(evaluated.output / "emit" / "kept.parquet", Example) if e.label)
    given = {row["predict"] for row in rows if row["id"] not in sound}
    assert len(given) == 1 and labels[given.pop()] == max(labels.values())
    found = [w for w in warnings if w.startswith("predictions.csv")]
    assert any("4 items could not be read" in w and all(i in w for i in ids - sound) for w in found), warnings
    assert any("1 unreadable items have no id" in w for w in found), warnings
    assert set(rows[0]) == {"id", "predict"}
    assert all(row["predict"] for row in rows)


def _read_test_items(config: EvaluateConfig) -> Path:
    return config.output / "evaluate" / "samples" / "test"


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


def test_held_out_items_unknown_to_emit_are_refused(evaluated: EvaluateConfig, tmp_path: Path) -> None:
    from flows.emit import emit
    from flows.evaluate import evaluate

    common = {name: getattr(evaluated, name) for name in CommonConfig.model_fields}
    run = EmitConfig(**common, labelled=evaluated.labelled, stages=()).model_copy(update={"output": tmp_path / "run"})
    rows = json.loads(evaluated.evaluation.manifest.read_text("utf-8"))
    manifest = tmp_path / "dev.json"
    manifest.write_text(json.dumps(rows[1:]), "utf-8")
    dev = evaluated.evaluation.model_copy(update={"manifest": manifest})
    unlabelled = evaluated.evaluate.model_copy(update={"truth": None})
    changes = {"output": tmp_path / "run", "unlabelled": None, "evaluation": dev, "evaluate": unlabelled}
    wanted = evaluated.model_copy(update=changes)
    emit(run)
    with pytest.raises(ConfigError, match=r"was made without the current .*dev\.json.* run `labelstill run` again"):
        evaluate(wanted)
    emit(run.model_copy(update={"evaluation": dev}))
    with pytest.raises(ConfigError, match="no held-out item has a label"):  # it is past the check
        evaluate(wanted)
    manifest.write_text(json.dumps(rows[2:]), "utf-8")
    with pytest.raises(ConfigError, match="was made without the current"):
        evaluate(wanted)


def test_an_emitted_item_that_left_its_set_is_named(evaluated: EvaluateConfig) -> None:
    from flows.evaluate import evaluate

    other = evaluated.evaluate.model_copy(update={"seeds": 3})
    with pytest.raises(ConfigError, match="is no longer in the labelled set or the pool; run `labelstill run` again"):
        evaluate(evaluated.model_copy(update={"unlabelled": None, "evaluate": other}))


def test_compare_prints_both_runs(evaluated: EvaluateConfig) -> None:
    from flows.commands.main import app

    result = CliRunner().invoke(app, ["compare", str(evaluated.output), str(evaluated.output)])
    assert result.exit_code == 0, result.output
    assert "20 held-out items in common" in result.output
    assert "+0.0" in result.output


def test_compare_says_that_a_set_is_transductive(evaluated: EvaluateConfig) -> None:
    from flows.commands.main import app

    file = evaluated.output / "emit" / "record.json"
    before = file.read_bytes()
    record = json.loads(before)
    file.write_text(json.dumps({**record, "figures": {**record["figures"], "transductive": 1.0}}))
    result = CliRunner().invoke(app, ["compare", str(evaluated.output), str(evaluated.output)])
    file.write_bytes(before)
    assert "ransductive" in result.output


def test_missing_results_are_named(evaluated: EvaluateConfig, tmp_path: Path) -> None:
    from flows.commands.main import app
    from flows.evaluate import evaluate

    result = CliRunner().invoke(app, ["compare", str(tmp_path), str(evaluated.output)])
    assert isinstance(result.exception, ConfigError)
    assert "labelstill evaluate" in str(result.exception)
    with pytest.raises(ConfigError, match="labelstill run"):
        evaluate(evaluated.model_copy(update={"output": tmp_path / "empty"}))
    unlabelled = evaluated.evaluate.model_copy(update={"truth": None})
    with pytest.raises(ConfigError, match="no held-out item has a label"):
        evaluate(evaluated.model_copy(update={"evaluate": unlabelled}))
    together = evaluated.evaluate.model_copy(update={"variants": (Variant.ENSEMBLE, Variant.SOFT)})
    with pytest.raises(ConfigError, match="for `test` come from one of all, corrected"):
        evaluate(evaluated.model_copy(update={"evaluate": together, "test": evaluated.evaluation}))
    without = small_config(tmp_path, items=40)
    with pytest.raises(ConfigError, match="`evaluation`"):
        without.make_evaluate_config()
