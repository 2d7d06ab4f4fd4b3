"""Ready configurations beside the data: train the whole model or adapters, and merge the adapters."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from tasks.dataset.export.exports import ExportSpec, Format
from tasks.dataset.export.files import subset_name
from tasks.dataset.export.llamafactory import write_dataset_info
from tasks.dataset.export.trainer_files import Plain, write_configuration
from tasks.packs.pack import TEMPLATES
from tasks.records import Subset
from tasks.storage.files import write_bytes

_STUDENTS = TEMPLATES / "students"
_ZERO3 = "deepspeed_zero3.json"
"""For the whole model: AdamW takes 16 bytes a parameter, so 7B needs several GPUs."""


def write_ready(format: Format, scratch: Path, folder: Path, name: str, spec: ExportSpec) -> None:
    """Write the configurations that belong to `format` into `scratch`, which is to become `folder/<format>`.

    What they train goes to `folder/trained`, which no export ever touches. Nothing is written for formats other than
    LLaMA-Factory's and ms-swift's. Raises ConfigError for a template or path that can't be used.
    """
    if format is Format.LLAMAFACTORY:
        _llamafactory(scratch, folder, name, spec)
    elif format is Format.SWIFT:
        _swift(scratch, folder, name, spec)


def _llamafactory(scratch: Path, folder: Path, name: str, spec: ExportSpec) -> None:
    home = folder / Format.LLAMAFACTORY
    validation = subset_name(name, Subset.VALIDATION)
    validated = (scratch / f"{validation}.json").exists()
    write_dataset_info(scratch, [name, validation] if validated else [name])
    evaluation: dict[str, Plain] = {"eval_dataset": validation, "eval_strategy": "epoch"} if validated else {}
    shutil.copyfile(_STUDENTS / _ZERO3, scratch / _ZERO3)
    words = _words(spec, folder, Format.LLAMAFACTORY) | {"data": str(home), "dataset": name}
    for kind in ("lora", "full"):
        own = words | {
            "output": str(folder / "trained" / f"{Format.LLAMAFACTORY}_{kind}"),
            "deepspeed": str(home / _ZERO3) if kind == "full" else None,
        }
        file = scratch / f"train_{kind}.yaml"
        write_configuration(file, _STUDENTS / f"{Format.LLAMAFACTORY}_{kind}.yaml", evaluation, own)
        # LLaMA-Factory refuses DeepSpeed on one GPU without FORCE_TORCHRUN
        before = "FORCE_TORCHRUN=1 " if kind == "full" else ""
        _say_how(file, f"{before}llamafactory-cli train {home / file.name}", {})
    merge = scratch / "merge_lora.yaml"
    adapter = {"adapter": str(folder / "trained" / f"{Format.LLAMAFACTORY}_lora")}
    write_configuration(merge, _STUDENTS / "merge" / f"{Format.LLAMAFACTORY}.yaml", {}, words | adapter)
    _say_how(merge, f"llamafactory-cli export {home / merge.name}", {})


def _swift(scratch: Path, folder: Path, name: str, spec: ExportSpec) -> None:
    home = folder / Format.SWIFT
    validation = f"{subset_name(name, Subset.VALIDATION)}.jsonl"
    evaluation: dict[str, Plain] = {"val_dataset": str(home / validation)} if (scratch / validation).exists() else {}
    shutil.copyfile(_STUDENTS / _ZERO3, scratch / _ZERO3)
    environment: dict[str, Plain] = {"MIN_PIXELS": spec.min_pixels, "MAX_PIXELS": spec.max_pixels}
    if spec.image_paths != "absolute":
        environment["ROOT_IMAGE_DIR"] = str(home)
    words = _words(spec, folder, Format.SWIFT) | {"file": str(home / f"{name}.jsonl")}
    for kind in ("lora", "full"):
        own = words | {
            "output": str(folder / "trained" / f"{Format.SWIFT}_{kind}"),
            "deepspeed": str(home / _ZERO3) if kind == "full" else None,
        }
        file = scratch / f"train_{kind}.yaml"
        write_configuration(file, _STUDENTS / f"{Format.SWIFT}_{kind}.yaml", evaluation, own)
        _say_how(file, f"swift sft {home / file.name}", environment)
    merge = scratch / "merge_lora.yaml"
    # checkpoints are named by their steps; ms-swift itself keeps this link to the newest
    adapter = {"adapter": str(folder / "trained" / f"{Format.SWIFT}_lora" / "last-checkpoint")}
    write_configuration(merge, _STUDENTS / "merge" / f"{Format.SWIFT}.yaml", {}, words | adapter)
    _say_how(merge, f"swift export {home / merge.name}", {})


def _words(spec: ExportSpec, folder: Path, trainer: Format) -> dict[str, Plain]:
    return {
        "base": os.path.abspath(spec.base) if Path(spec.base).is_dir() else spec.base,
        "revision": spec.revision,
        "trust_remote_code": False,
        "seed": spec.seed,
        "fold": 0,
        "min_pixels": spec.min_pixels,
        "max_pixels": spec.max_pixels,
        "max_tokens": spec.max_tokens,
        "merged": str(folder / "trained" / f"{trainer}_lora_merged"),
    }


def _say_how(file: Path, command: str, environment: Mapping[str, Plain]) -> None:
    """Put the command line at the head of the configuration, and under `ENV` what ms-swift is to set itself."""
    head = f"# {command}\n" + (yaml.safe_dump({"ENV": dict(environment)}) if environment else "")
    write_bytes(file, head.encode() + file.read_bytes())
