"""A scripted engine as teacher, as a user configures it: a rule, of whose answers nothing follows."""

from pathlib import Path

import pytest

from flows.config import DistillConfig
from tasks.correction.outcome import SUSPICIOUS
from tasks.models.engines.spec import RULE, STAND_IN
from tasks.models.settings import TeacherSettings
from tasks.records import Correction, Prediction
from tasks.report.summary import summarize_run
from tasks.storage.rows import read_rows
from tests.conftest import PrefectServer
from tests.flows.test_pseudo_labels import make_config, read_trusted


@pytest.fixture(scope="module")
def runs(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[DistillConfig, Path]:
    """A finished run with scripted teachers, and the output of the same run without any teacher."""
    from flows.distill import distill

    rules = [{"engine": "scripted", "model": f"scripted:{name}"} for name in ("first", "hash")]
    teachers = TeacherSettings.model_validate({"teachers": rules}).teachers
    config = make_config(tmp_path_factory.mktemp("rule"), review_budget=4)
    config = config.model_copy(update={"teacher": None, "teachers": teachers})
    without = config.model_copy(update={"teachers": (), "output": config.output.parent / "without"})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(STAND_IN)
        distill(config)
        distill(without)
    return config, without.output


def test_labels_are_corrected_as_without_a_teacher(runs: tuple[DistillConfig, Path]) -> None:
    config, without = runs
    rows = read_rows(config.output / "correction/kept.parquet", Correction)
    assert any(row.flagged for row in rows)
    assert rows == read_rows(without / "correction/kept.parquet", Correction)
    suspicious = (config.output / "correction" / SUSPICIOUS).read_bytes()
    assert suspicious == (without / "correction" / SUSPICIOUS).read_bytes()


def test_no_pseudo_label_is_kept(runs: tuple[DistillConfig, Path]) -> None:
    config, _ = runs
    assert not read_rows(config.output / "pseudo_labels/kept.parquet", Prediction)
    found = read_trusted(config).values()
    assert {(t.decision, t.why) for t in found} == {("answered_by_rule", f"the teacher is {RULE}")}
    assert all(t.label and t.evidence.teachers[1:] == (None,) for t in found)


def test_report_card_and_summary_say_that_it_is_a_rule(runs: tuple[DistillConfig, Path]) -> None:
    config, without = runs
    pages = [config.output / "correction/report.html", config.output / "card/index.html"]
    assert all(f"teacher 1 (correction, pseudo_labels) is {RULE}" in page.read_text("utf-8") for page in pages[1:])
    assert f"The teacher is {RULE}." in pages[0].read_text("utf-8")
    assert any(RULE in warning for warning in summarize_run(config.output).warnings)
    assert RULE not in (without / "correction/report.html").read_text("utf-8")
