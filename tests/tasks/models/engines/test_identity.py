from pathlib import Path

from tasks.models.engines.identity import model_identity
from tasks.models.engines.spec import EngineSpec


def test_identity_follows_the_files(tmp_path: Path):
    assert model_identity(EngineSpec(model="Qwen/Qwen2-VL-7B-Instruct")) == "Qwen/Qwen2-VL-7B-Instruct@main"
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = model_identity(EngineSpec(model=str(folder)))
    assert before.startswith("teacher#")
    assert len(before) == len("teacher#") + 12
    (folder / "notes.md").write_text("x")
    assert model_identity(EngineSpec(model=str(folder))) == before
    (folder / "config.json").write_text("[]")
    assert model_identity(EngineSpec(model=str(folder))) != before
