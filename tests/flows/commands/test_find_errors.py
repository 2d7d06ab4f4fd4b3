"""`labelstill find-errors`: from labelled items to suspicious ones, and from verdicts to a corrected copy."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from flows.commands.main import app
from flows.config import DistillConfig
from tasks.demo.dataset import write_demo
from tasks.errors import ConfigError
from tasks.review.queue import read_queue
from tasks.storage.stage_record import Costs, read_record
from tests.conftest import PrefectServer


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """120 labelled items of the demo, a tenth of them wrongly labelled."""
    paths = write_demo(tmp_path / "data", labelled=120, unlabelled=20, test=20)
    places = {name: str(tmp_path / name) for name in ("images", "texts", "ledger", "output")}
    labelled = {"manifest": str(paths.labelled.manifest), "images": str(paths.labelled.images)}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"pack": "demo", "labelled": labelled, **places}), encoding="utf-8")
    return file


def find_errors(config: Path) -> str:
    done = CliRunner().invoke(app, ["find-errors", str(config)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def read_costs(output: Path) -> Costs:
    record = read_record(output / "correction")
    assert record is not None
    return record.costs


def test_wrong_labels_are_found_judged_and_corrected(prefect_server: PrefectServer, config: Path) -> None:
    output = config.parent / "output"
    text = find_errors(config)
    assert "Students" in text and "of 120 given labels" in text and "labelstill review import" in text
    assert not (output / "emit").exists()
    assert read_costs(output).asked == 0
    table = pd.read_csv(output / "correction" / "suspicious.csv")
    assert list(table) == ["id", "given", "candidate", "p_wrong", "action", "verdict", "source"]
    assert (table.p_wrong.diff().dropna() <= 0).all()
    cases = read_queue(output / "review")
    audited = {case.sample_id for case in cases if case.blind}
    assert audited and not audited & set(table.id), "the audit stays blind"
    assert "in the blind sample, so they are not listed yet" in text
    truth = {row["id"]: row["label"] for row in map(json.loads, (config.parent / "data" / "truth.jsonl").open())}
    verdicts = config.parent / "verdicts.jsonl"
    judged = [{"id": case.sample_id, "verdict": truth[case.sample_id]} for case in cases]
    verdicts.write_text("".join(json.dumps(line) + "\n" for line in judged), encoding="utf-8")
    CliRunner().invoke(app, ["review", "import", str(output), str(verdicts), "--by", "anna"], catch_exceptions=False)
    students = {file: file.stat().st_mtime_ns for file in (output / "correction" / "students").rglob("student.json")}
    assert "by people" in find_errors(config)
    assert {file: file.stat().st_mtime_ns for file in students} == students
    changed = [json.loads(line) for line in (output / "correction" / "corrections.jsonl").open(encoding="utf-8")]
    assert changed and all(line["now"] == truth[line["id"]] for line in changed if line["reviewed"])


def test_run_yaml_in_the_folder_is_the_default(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    done = CliRunner().invoke(app, ["check"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0 and "labelled: 126 read, 120 kept" in done.stdout
    config.unlink()
    with pytest.raises(ConfigError, match=r"run\.yaml: missing; give the path"):
        CliRunner().invoke(app, ["check"], catch_exceptions=False)


def test_students_of_another_kind_are_left_alone(config: Path) -> None:
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) | {"student": {"base": "Qwen/Qwen2-VL-2B-Instruct"}}
    search = DistillConfig.model_validate(settings).to_search()
    assert search.output == config.parent / "output" / "find_errors"
    assert search.student.kind == "probe" and search.teacher is None


def test_a_configuration_without_labels_is_refused(config: Path) -> None:
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    settings["unlabelled"] = settings.pop("labelled")
    with pytest.raises(ConfigError, match="labelled: the key is missing"):
        DistillConfig.model_validate(settings).to_search()
