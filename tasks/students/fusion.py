"""Fuse LoRA students into one: an adapter that adds to the base the mean of what theirs add.

How far what is added is from that mean, with peft's three combinations of three random adapters of rank 4: `cat`, which
puts their matrices side by side, 1e-7; `svd`, which keeps the rank of one, 0.7; `linear`, which averages the matrices
one by one, 1.6. So `cat` is used. The rank is the sum of theirs, and vLLM serves up to 512.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForImageTextToText

from tasks.models.qwen_vl import load_processor
from tasks.storage.json_lines import write_json
from tasks.students.settings import StudentSpec
from tasks.students.student_folder import keep_student, work_folder

_FUSED = "fused"
_CONFIG = "adapter_config.json"
_OF_THE_BASE = ("base_model_name_or_path", "revision", "target_modules")
COMBINATION = "cat"


def fuse_students(
    spec: StudentSpec, revision: str | None, folders: Sequence[Path], folder: Path, combination: str = COMBINATION
) -> None:
    """Write the fused adapter of the students in `folders`, and the base's processor files, to `folder`.

    The folder is complete once it contains student.json, as that of any student.
    """
    # peft takes a bare number for that of a layer, and then saves nothing
    names = [f"student{number}" for number in range(len(folders))]
    model = PeftModel.from_pretrained(_make_hollow_model(spec, revision), folders[0], names[0], torch_device="cpu")
    for name, student in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(student, name, torch_device="cpu")
    weights = [1 / len(names)] * len(names)
    combine: Any = model.base_model
    combine.add_weighted_adapter(names, weights, _FUSED, combination_type=combination, svd_full_matrices=False)
    work = work_folder(folder)
    shutil.rmtree(work, ignore_errors=True)
    model.save_pretrained(str(work / "all"), selected_adapters=[_FUSED], safe_serialization=True)
    done = work / "all" / _FUSED
    _copy_base(folders[0] / _CONFIG, done / _CONFIG)
    load_processor(spec.base, revision=revision, trust_remote_code=spec.trust_remote_code).save_pretrained(done)
    keep_student(done, folder, {"fused": [student.name for student in folders], "spec": spec.model_dump(mode="json")})
    shutil.rmtree(work)


def _make_hollow_model(spec: StudentSpec, revision: str | None) -> Any:
    """Return the base without weights: fusing reads none, and those of a 7B model would take 15 GB."""
    shared = {"revision": revision, "trust_remote_code": spec.trust_remote_code}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(spec.base, **shared))
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            # peft puts new adapters on the device of the layer: one number in the shape of the weights will do
            zeros = torch.zeros(1).expand(layer.weight.shape)
            layer.weight = torch.nn.Parameter(zeros, requires_grad=False)
    return model


def _copy_base(student: Path, fused: Path) -> None:
    """Name in the fused adapter's configuration what a student's says about the base, which peft does not know here."""
    known = json.loads(student.read_text("utf-8"))
    config = json.loads(fused.read_text("utf-8")) | {key: known[key] for key in _OF_THE_BASE}
    write_json(fused, config)
