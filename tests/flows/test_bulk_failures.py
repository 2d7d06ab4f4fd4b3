"""A run whose questions fail in bulk ends as a failure that says why; its work is kept."""

import json
from pathlib import Path

import pytest

from flows.config import DistillConfig, EmitConfig
from tasks.dataset.settings import MixSettings
from tasks.errors import AccountError, TooManyFailures
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings
from tasks.report.summary import summarize_run
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config
from tests.flows.test_emit import config, run_emit
from tests.stub_server import Options, running

__all__ = ["config"]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def run(prefect_server: PrefectServer, tmp_path: Path) -> DistillConfig:
    """A run without students whose teacher answers every other question about the pool unreadably."""
    whole = small_config(tmp_path)
    teacher = EngineSpec(engine="scripted", model="scripted:hash,bad=2")
    return whole.model_copy(update={"student": None, "teacher": teacher, "ask": AskSettings(votes=1, attempts=1)})


def test_the_cause_is_in_error_summary_and_card_and_work_is_kept(run: DistillConfig) -> None:
    from flows.distill import distill

    with pytest.raises(TooManyFailures, match=r"pseudo_labels: 30 of 60 .*: malformed, 30 times, e\.g\. item") as error:
        distill(run)
    assert str(error.value) in summarize_run(run.output).to_text()
    assert "30 of 60 questions failed" in (run.output / "card" / "index.html").read_text("utf-8")
    assert (run.output / "rationales" / "record.json").exists()
    assert not (run.output / "emit").exists()
    records = distill(run.model_copy(update={"max_failed_share": 0.6}))
    assert records["pseudo_labels"].costs.asked == 60  # the pool; the labelled set is in the ledger
    assert "questions failed" not in (run.output / "card" / "index.html").read_text("utf-8")


def test_a_mix_without_usable_rows_fails_before_anything_is_written(config: EmitConfig, tmp_path: Path) -> None:
    rows = tmp_path / "general.jsonl"
    rows.write_text("\n".join(json.dumps({"conversations": [i]}) for i in range(90)), encoding="utf-8")
    mix = MixSettings(file=rows, share=0.3)
    mixed = config.model_copy(update={"emit": config.emit.model_copy(update={"mix": mix})})
    with pytest.raises(TooManyFailures, match=r"general\.jsonl gives 0 of the 15 examples .*mix_malformed, 3\d times"):
        run_emit(mixed)
    assert not (config.output / "emit").exists()


def test_a_refused_account_is_shown_like_a_bulk_failure(run: DistillConfig) -> None:
    from flows.distill import distill

    with running(Options(api_key="right")) as stub:
        spec = EngineSpec(engine="server", model="stub", base_urls=(stub.url,))
        with pytest.raises(AccountError, match="rejects our API key"):
            distill(run.model_copy(update={"generator": spec}))
    assert "rejects our API key" in summarize_run(run.output).to_text()
