"""A run whose teacher thinks: what it thought stays in the ledger, unless a generator shortens it to reasons."""

import sqlite3
from pathlib import Path

import pytest

from flows.config import DistillConfig
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.rationales.settings import RationaleSettings
from tasks.records import Example, Prediction
from tasks.storage.rows import read_rows
from tests.conftest import PrefectServer
from tests.flows.test_pseudo_labels import make_config, run
from tests.stub_answers import THOUGHT
from tests.stub_server import Options, Running, Thinks, running


def configure(folder: Path, stub: Running, *, teach: bool) -> DistillConfig:
    """Return a run of a pool of 60 alone, all of whose labels are kept."""
    changes = {
        "labelled": None,
        "student": None,
        "teacher": EngineSpec(engine="server", model="stub", base_urls=(stub.url,), thinking_tokens=300),
        "generator": EngineSpec(engine="scripted", model="scripted:hash") if teach else None,
        "ask": AskSettings(votes=1),
        "pseudo_labels": PseudoLabelSettings(target_precision=0.9),
        "rationales": RationaleSettings(teach_thinking=teach),
        "output": folder / ("taught" if teach else "plain"),
    }
    return DistillConfig.model_validate(dict(make_config(folder)) | changes)


@pytest.fixture(scope="module", params=[Thinks.APART, Thinks.NOT_WITH_SCHEMA])
def runs(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[DistillConfig, DistillConfig]:
    """The same finished run without and with reasons from thoughts; the second asks the teacher nothing."""
    folder = tmp_path_factory.mktemp("thinking")
    with running(Options(thinks=request.param, unguided="和订单有关")) as stub:
        plain, taught = (configure(folder, stub, teach=teach) for teach in (False, True))
        per_item = 1 if request.param is Thinks.APART else 2
        assert (run(plain).kept, run(plain).costs.asked) == (60, 60 * per_item)
        record = run(taught)
    assert record.costs.reused == 60 * per_item and record.figures["reasons from thoughts"] > 0
    return plain, taught


def find_thoughts(folder: Path) -> list[str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file.name for file in files if THOUGHT in file.read_bytes().decode("utf-8", "replace")]


def test_thoughts_are_in_the_ledger_and_nowhere_else(runs: tuple[DistillConfig, DistillConfig]) -> None:
    plain, taught = runs
    assert (plain.output / "emit").exists() and not find_thoughts(plain.output) + find_thoughts(taught.output)
    with sqlite3.connect(plain.ledger) as ledger:
        rows = ledger.execute("SELECT generation FROM answers WHERE purpose = 'classify'").fetchall()
    assert sum(THOUGHT in text for (text,) in rows) == len(rows) >= 60


def test_labels_stay_and_students_learn_the_reasons_that_passed(runs: tuple[DistillConfig, DistillConfig]) -> None:
    before, after = (
        {p.sample_id: p for p in read_rows(config.output / "pseudo_labels/kept.parquet", Prediction)} for config in runs
    )
    assert {i: p.label for i, p in before.items()} == {i: p.label for i, p in after.items()}
    changed = {i for i, p in after.items() if p.reason != before[i].reason}
    with sqlite3.connect(runs[1].ledger) as ledger:
        asked = {i for (i,) in ledger.execute("SELECT sample_id FROM answers WHERE purpose = 'shorten'")}
    assert len(changed) > 0 and changed <= asked == set(before)
    learnt = {e.sample_id: e.reason for e in read_rows(runs[1].output / "emit/kept.parquet", Example) if e.reason}
    assert learnt and learnt.keys() & changed
    assert all(reason == after[i].reason for i, reason in learnt.items())
