import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tasks.dataset.export.exports import write_exports
from tasks.dataset.export.student_set import write_data
from tasks.dataset.export.trainer_names import EMPTY_THOUGHTS, name_for_trainer
from tasks.dataset.settings import ExportSpec, Format
from tasks.errors import ConfigError, EngineError
from tasks.models.qwen_vl import QwenVL
from tests.tasks.dataset.export.making import ask

BOTH = (Format.LLAMAFACTORY, Format.SWIFT)


@pytest.mark.parametrize(
    ("base", "llamafactory", "swift", "model_type"),
    [
        ("qwen2_vl", "qwen2_vl", "qwen2_vl", "qwen2_vl"),
        ("qwen2_5_vl", "qwen2_vl", "qwen2_5_vl", "qwen2_5_vl"),
        ("qwen3_vl", "qwen3_vl_nothink", "qwen3_vl", "qwen3_vl"),
        ("qwen3_vl_thinking", "qwen3_vl", "qwen3_vl", "qwen3_vl"),
        ("Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl", "qwen2_vl", "qwen2_vl"),
        ("Qwen/Qwen3-VL-30B-A3B-Thinking", "qwen3_vl", "qwen3_vl", "qwen3_vl_moe"),
    ],
)
def test_every_configuration_has_the_trainers_names_of_the_base(
    base: str, llamafactory: str, swift: str, model_type: str, random_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    base = str(random_checkpoints.get(base, base))
    write_exports(tmp_path, "set", [ask("问")], ExportSpec(base=base, formats=BOTH))
    for file in ("train_lora.yaml", "train_full.yaml", "merge_lora.yaml"):
        ours = {f: yaml.safe_load((tmp_path / f / file).read_text("utf-8")) for f in BOTH}
        assert ours["llamafactory"]["template"] == llamafactory
        assert (ours["swift"]["template"], ours["swift"]["model_type"]) == (swift, model_type)


def test_an_unknown_base_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llava"}')
    spec = ExportSpec(base=str(tmp_path / "base"), formats=BOTH)
    with pytest.raises(EngineError, match=r"base: `model_type` in config\.json is llava"):
        write_exports(tmp_path / "out", "set", [ask("问")], spec)
    assert not (tmp_path / "out").exists()
    # the other formats name no base
    write_exports(tmp_path / "out", "set", [ask("问")], spec.model_copy(update={"formats": (Format.QWEN,)}))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (QwenVL("qwen4_vl", 16, thinks=False), "b: swift has no template for a qwen4_vl; use another base"),
        (QwenVL("qwen2_5_vl", 14, thinks=True), "b: swift has no template for a qwen2_5_vl that thinks"),
    ],
)
def test_a_generation_without_a_name_is_refused(model: QwenVL, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        name_for_trainer("swift", "b", model)


def test_only_ms_swifts_rows_have_the_empty_thoughts_of_a_thinking_model(
    random_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """LLaMA-Factory's template writes them, and Qwen's chat template too."""
    examples = [ask("问")]
    write_exports(
        tmp_path, "set", examples, ExportSpec(base=str(random_checkpoints["qwen3_vl_thinking"]), formats=BOTH)
    )
    swift = json.loads((tmp_path / "swift" / "set.jsonl").read_text("utf-8"))
    (llamafactory,) = json.loads((tmp_path / "llamafactory" / "set.json").read_text("utf-8"))
    assert swift["messages"][-1]["content"] == EMPTY_THOUGHTS + llamafactory["messages"][-1]["content"]
    assert json.loads(write_data(tmp_path, "s", "swift", examples, thinks=True).read_text("utf-8")) == swift
