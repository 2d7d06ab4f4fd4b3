from pathlib import Path

from tasks.models.engines.identity import identify_model
from tasks.models.engines.spec import EngineSpec


def test_identity_follows_the_files(tmp_path: Path):
    assert identify_model(EngineSpec(model="Qwen/Qwen2-VL-7B-Instruct")) == "Qwen/Qwen2-VL-7B-Instruct@main"
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = identify_model(EngineSpec(model=str(folder)))
    assert before.startswith("teacher#")
    assert len(before) == len("teacher#") + 12
    (folder / "notes.md").write_text("x")
    assert identify_model(EngineSpec(model=str(folder))) == before
    (folder / "config.json").write_text("[]")
    assert identify_model(EngineSpec(model=str(folder))) != before
