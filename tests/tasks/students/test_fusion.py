"""Several LoRA students as one adapter."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from tasks.students.fusion import fuse_students
from tasks.students.settings import StudentSpec
from tests.checkpoints import make_small_tokenizer, write_random_checkpoint

TARGETS = r".*language_model.*\.(q_proj|down_proj)"


def write_student(base: Path, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForImageTextToText.from_pretrained(base), config).save_pretrained(folder)
    return folder


def read_deltas(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    """What the adapter adds to each matrix of the base."""
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), folder)
    layers = {name: m for name, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    return {name: layer.get_delta_weight("default").detach() for name, layer in layers.items()}  # pyright: ignore


def test_the_fused_adapter_adds_exactly_the_mean_of_what_the_students_add(tmp_path: Path) -> None:
    base = write_random_checkpoint(tmp_path / "base", make_small_tokenizer(["退款页面"]), "qwen2_vl")
    students = [write_student(base, tmp_path / f"student-{seed}", seed) for seed in range(3)]
    fused = tmp_path / "fused"
    fuse_students(StudentSpec(base=str(base)), None, students, fused)
    added = [read_deltas(base, student) for student in students]
    found = read_deltas(base, fused)
    assert found.keys() == added[0].keys()
    for name, delta in found.items():
        torch.testing.assert_close(delta, sum(one[name] for one in added) / 3)
    assert AutoProcessor.from_pretrained(fused).tokenizer.vocab_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "fused", "student-0", "student-1", "student-2"]
