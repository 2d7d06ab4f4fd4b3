"""Write trainer configurations beside the data: to train the full model or adapters, and to merge adapters."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import yaml

from tasks.dataset.export.conversation import find_form
from tasks.dataset.export.files import subset_name
from tasks.dataset.export.llamafactory import write_dataset_info
from tasks.dataset.export.recordings import Recordings, describe_recordings, make_swift_environment
from tasks.dataset.export.trainer_files import Plain, write_configuration
from tasks.dataset.export.trainer_names import name_for_trainer
from tasks.dataset.settings import ExportSpec, Format
from tasks.models.qwen_vl import read_qwen_vl
from tasks.packs.pack import TEMPLATES
from tasks.prompts.box_forms import BoxForm
from tasks.records import Subset

_STUDENTS = TEMPLATES / "students"
_ZERO3 = "deepspeed_zero3.json"
"""Used for full training: AdamW takes 16 bytes per parameter, so a 7B model must be split over several GPUs."""


@dataclass(frozen=True)
class _Recipe:
    """How the data of a format are trained on."""

    trainer: Literal[Format.LLAMAFACTORY, Format.SWIFT]
    train: str
    """The command that trains; it takes a configuration file."""
    merge: str
    """The command that merges adapters."""
    options: Mapping[str, Plain] = field(default_factory=dict[str, Plain])
    """Options that replace those of the trainer's templates."""
    full: bool = True
    """Whether there is a configuration that trains the full model."""


_DPO_RATE = 1.0e-5
"""Learning rate of DPO, a tenth of that of supervised training."""
_LLAMAFACTORY = _Recipe(Format.LLAMAFACTORY, "llamafactory-cli train", "llamafactory-cli export")
_SWIFT = _Recipe(Format.SWIFT, "swift sft", "swift export")
_RECIPES = {
    Format.LLAMAFACTORY: _LLAMAFACTORY,
    Format.SWIFT: _SWIFT,
    # otherwise the weights of rows are rounded
    Format.SWIFT_SOFT: replace(_SWIFT, options={"is_binary_loss_scale": False}),
    # DPO of the full model would keep a second one as reference
    Format.LLAMAFACTORY_PAIRS: replace(
        _LLAMAFACTORY, options={"stage": "dpo", "pref_beta": 0.1, "learning_rate": _DPO_RATE}, full=False
    ),
    Format.SWIFT_PAIRS: replace(
        _SWIFT, train="swift rlhf", options={"rlhf_type": "dpo", "beta": 0.1, "learning_rate": _DPO_RATE}, full=False
    ),
}


def write_ready(
    format: Format, scratch: Path, folder: Path, name: str, spec: ExportSpec, recordings: Recordings
) -> None:
    """Write the trainer configurations for `format` to `scratch`, which later becomes `folder/<format>`.

    Only the formats of LLaMA-Factory and ms-swift have configurations; for other formats nothing is written. Trained
    models go to `folder/trained`, which exports never change. Raises ConfigError for an invalid template or path.
    """
    if format not in _RECIPES:
        return
    recipe = _RECIPES[format]
    home, trained = folder / format, folder / "trained"
    adapter = trained / f"{format}_lora"
    validation = subset_name(name, Subset.VALIDATION)
    options = dict(recipe.options)
    environment: dict[str, Plain] = {}
    if recipe.trainer is Format.LLAMAFACTORY:
        launcher = "FORCE_TORCHRUN=1 "  # without it LLaMA-Factory refuses DeepSpeed on one GPU
        names = {name: Subset.TRAIN in recordings.subsets}
        if (scratch / f"{validation}.json").exists():
            names[validation] = Subset.VALIDATION in recordings.subsets
            options |= {"eval_dataset": validation, "eval_strategy": "epoch"}
        write_dataset_info(scratch, names, pairs=format is Format.LLAMAFACTORY_PAIRS)
    else:
        launcher = ""
        # checkpoints are named by step; ms-swift maintains this link to the newest one
        adapter /= "last-checkpoint"
        if (scratch / f"{validation}.jsonl").exists():
            options |= {"val_dataset": str(home / f"{validation}.jsonl")}
        environment = {**make_swift_environment(spec.min_pixels, spec.max_pixels, recordings)}
        if find_form(spec) is not BoxForm.QWEN2:
            environment["QWENVL_BBOX_FORMAT"] = "new"  # otherwise ms-swift writes boxes with the tokens of Qwen2-VL
        if spec.image_paths != "absolute":
            environment["ROOT_IMAGE_DIR"] = str(home)
    shutil.copyfile(_STUDENTS / _ZERO3, scratch / _ZERO3)
    words: dict[str, Plain] = {
        "data": str(home),
        "dataset": name,
        "file": str(home / f"{name}.jsonl"),
        **name_for_trainer(recipe.trainer, spec.base, read_qwen_vl(spec.base, spec.revision)),
        "base": os.path.abspath(spec.base) if Path(spec.base).is_dir() else spec.base,
        "revision": spec.revision,
        "trust_remote_code": spec.trust_remote_code,
        "seed": spec.seed,
        "fold": 0,
        "min_pixels": spec.min_pixels,
        "max_pixels": spec.max_pixels,
        "max_tokens": spec.max_tokens,
        **describe_recordings(spec.min_pixels, spec.max_pixels, recordings),
        "merged": str(trained / f"{format}_lora_merged"),
        "adapter": str(adapter),
    }
    kinds = (("lora", None, ""), ("full", str(home / _ZERO3), launcher))
    for kind, deepspeed, before in kinds if recipe.full else kinds[:1]:
        file = f"train_{kind}.yaml"
        head = _describe_use(f"{before}{recipe.train} {home / file}", environment)
        own = words | {"output": str(trained / f"{format}_{kind}"), "deepspeed": deepspeed}
        write_configuration(scratch / file, _STUDENTS / f"{recipe.trainer}_{kind}.yaml", options, own, head)
    head = _describe_use(f"{recipe.merge} {home / 'merge_lora.yaml'}", {})
    write_configuration(scratch / "merge_lora.yaml", _STUDENTS / "merge" / f"{recipe.trainer}.yaml", {}, words, head)


def _describe_use(command: str, environment: Mapping[str, Plain]) -> str:
    """Return the first lines of a configuration: its command line, and the `ENV` variables that ms-swift sets."""
    return f"# {command}\n" + (yaml.safe_dump({"ENV": dict(environment)}) if environment else "")
