"""Options of a pack in a stage flow: items are described first, and the text on images is shown."""

import json
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from flows.config import PseudoLabelsConfig
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings
from tasks.packs.pack import TEMPLATES
from tasks.records import Prediction
from tasks.storage.rows import read_rows
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config

DESCRIBE = "{% block prefix %}看：{% endblock %}{% block suffix %}请描述。{% endblock %}"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(TEMPLATES / "demo", tmp_path / "pack"))
    file = folder / "pack.yaml"
    options = 'describe_first: true\nocr: {before: "〔图中文字：", after: "〕"}\ntasks:\n'
    file.write_text(file.read_text(encoding="utf-8").replace("tasks:\n", options, 1), encoding="utf-8")
    (folder / "describe.jinja").write_text(DESCRIBE, encoding="utf-8")
    classify = folder / "classify.jinja"
    text = classify.read_text(encoding="utf-8")
    assert "{% block suffix %}" in text
    shown = text.replace("{% block suffix %}", "{% block suffix %}所见：{{ description }}", 1)
    classify.write_text(shown, encoding="utf-8")
    return folder


def test_items_are_read_described_and_labelled(
    prefect_server: PrefectServer, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.pseudo_labels import pseudo_labels

    whole = small_config(tmp_path, items=12)
    assert whole.unlabelled
    config = PseudoLabelsConfig(
        pack=str(pack),
        output=whole.output,
        ledger=whole.ledger,
        images=whole.images,
        texts=whole.texts,
        unlabelled=whole.unlabelled,
        teacher=EngineSpec(engine="scripted", model="scripted:hash,bad=7"),
        ask=AskSettings(votes=1, attempts=3),
        pseudo_labels=whole.pseudo_labels,
    )
    record = pseudo_labels(config)
    predictions = read_rows(whole.output / "pseudo_labels" / "predictions.parquet", Prediction)
    assert len(predictions) == record.read > 6
    again = sum(p.attempt for p in predictions)
    assert record.costs.asked == 3 * record.read + again  # described, then with and without the description
    assert record.costs.asked_again == again > 0
    assert sum(record.costs.rungs.values()) == 2 * record.read

    with sqlite3.connect(whole.ledger) as connection:
        rows = pd.read_sql("SELECT purpose, request FROM questions", connection)
    questions = [json.loads(r) for r in rows.request[rows.purpose == "classify"]]
    asked = [r for r in questions if r["constraint"]["reason_key"]]
    assert all(r["suffix"].startswith("所见：") and len(r["suffix"]) > 10 for r in asked)
    with_images = [r for r in asked if any(p["type"] == "image" for p in r["parts"])]
    texts = [p["text"] for r in with_images for p in r["parts"] if p["type"] == "text"]
    assert any(t.startswith("〔图中文字：") and t.endswith("〕") for t in texts)

    assert pseudo_labels(config) == record
    monkeypatch.setattr("tasks.items.ocr.version", lambda name: f"another {name}")
    other = pseudo_labels(config)
    assert other.recipe != record.recipe
    # what it reads is the same here, so that every question but the unreadable ones is in the ledger
    assert other.costs.asked == 0 < other.costs.reused
