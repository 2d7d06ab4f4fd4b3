"""The whole demo with barely trained models: real checkpoints, local engines and fold students."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.commands.main import app
from tasks.demo.settings import DemoConfig
from tasks.storage.stage_record import read_record
from tests.conftest import PrefectServer


@pytest.mark.timeout(600)
def test_demo_ends_with_its_figures(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.demo import demo

    config = DemoConfig(output=tmp_path, labelled=40, unlabelled=40, folds=2, training=0.02)
    text = demo(config)
    for stage in ("samples/labelled", "samples/unlabelled", "rationales", "pseudo_labels", "correction", "emit"):
        assert read_record(tmp_path / "run" / stage) is not None
    for words in ("Labelled items", "labels were made wrong on purpose", "found by students", "card/index.html"):
        assert words in text
    assert len(text.splitlines()) <= 40
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "models").rglob("*.safetensors")}
    assert len(stamps) == 3
    monkeypatch.setattr("tasks.demo.settings.DemoConfig", lambda: config)
    monkeypatch.setattr("flows.service.pages.find_or_start_pages", lambda: "http://127.0.0.1:1")
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 0
    assert "Labelled items" in done.output
    assert f"The run in the web UI: {prefect_server.api_url.removesuffix('/api')}/runs/flow-run/" in done.output
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "models").rglob("*.safetensors")}
