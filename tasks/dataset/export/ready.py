"""Ready configurations beside the data: train the whole model or adapters, and merge the adapters."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tasks.dataset.export.files import subset_name
from tasks.dataset.export.llamafactory import write_dataset_info
from tasks.dataset.export.trainer_files import Plain, write_configuration
from tasks.dataset.settings import ExportSpec, Format
from tasks.packs.pack import TEMPLATES
from tasks.records import Subset
from tasks.storage.files import write_bytes

_STUDENTS = TEMPLATES / "students"
_ZERO3 = "deepspeed_zero3.json"
"""For the whole model: AdamW takes 16 bytes a parameter, so 7B needs several GPUs."""


@dataclass(frozen=True)
class _Trainer:
    """What differs between the two trainers."""

    train: str
    """The command that takes a training configuration."""
    merge: str
    """The command that takes the merge's configuration."""
    adapter: str
    """Where under `trained/` the adapters are."""
    data: dict[str, Plain]
    """The words of the templates that name the data set."""
    validation: dict[str, Plain]
    """The options that name the validation set; none where there is none."""
    environment: dict[str, Plain] = field(default_factory=dict[str, Plain])
    whole: str = ""
    """What goes before the command that trains the whole model."""


def write_ready(format: Format, scratch: Path, folder: Path, name: str, spec: ExportSpec) -> None:
    """Write the configurations that belong to `format` into `scratch`, which is to become `folder/<format>`.

    What they train goes to `folder/trained`, which no export ever touches. Nothing is written for formats other than
    LLaMA-Factory's and ms-swift's. Raises ConfigError for a template or path that can't be used.
    """
    if format is Format.LLAMAFACTORY:
        trainer = _llamafactory(scratch, folder / format, name)
    elif format is Format.SWIFT:
        trainer = _swift(scratch, folder / format, name, spec)
    else:
        return
    home, trained = folder / format, folder / "trained"
    shutil.copyfile(_STUDENTS / _ZERO3, scratch / _ZERO3)
    words = trainer.data | {
        "base": os.path.abspath(spec.base) if Path(spec.base).is_dir() else spec.base,
        "revision": spec.revision,
        "trust_remote_code": False,
        "seed": spec.seed,
        "fold": 0,
        "min_pixels": spec.min_pixels,
        "max_pixels": spec.max_pixels,
        "max_tokens": spec.max_tokens,
        "merged": str(trained / f"{format}_lora_merged"),
        "adapter": str(trained / trainer.adapter),
    }
    for kind, deepspeed, before in (("lora", None, ""), ("full", str(home / _ZERO3), trainer.whole)):
        file = scratch / f"train_{kind}.yaml"
        own = words | {"output": str(trained / f"{format}_{kind}"), "deepspeed": deepspeed}
        write_configuration(file, _STUDENTS / f"{format}_{kind}.yaml", trainer.validation, own)
        _say_how(file, f"{before}{trainer.train} {home / file.name}", trainer.environment)
    file = scratch / "merge_lora.yaml"
    write_configuration(file, _STUDENTS / "merge" / f"{format}.yaml", {}, words)
    _say_how(file, f"{trainer.merge} {home / file.name}", {})


def _llamafactory(scratch: Path, home: Path, name: str) -> _Trainer:
    validation = subset_name(name, Subset.VALIDATION)
    validated = (scratch / f"{validation}.json").exists()
    write_dataset_info(scratch, [name, validation] if validated else [name])
    return _Trainer(
        train="llamafactory-cli train",
        merge="llamafactory-cli export",
        adapter=f"{Format.LLAMAFACTORY}_lora",
        data={"data": str(home), "dataset": name},
        validation={"eval_dataset": validation, "eval_strategy": "epoch"} if validated else {},
        whole="FORCE_TORCHRUN=1 ",  # without it LLaMA-Factory refuses DeepSpeed on one GPU
    )


def _swift(scratch: Path, home: Path, name: str, spec: ExportSpec) -> _Trainer:
    validation = f"{subset_name(name, Subset.VALIDATION)}.jsonl"
    environment: dict[str, Plain] = {"MIN_PIXELS": spec.min_pixels, "MAX_PIXELS": spec.max_pixels}
    if spec.image_paths != "absolute":
        environment["ROOT_IMAGE_DIR"] = str(home)
    return _Trainer(
        train="swift sft",
        merge="swift export",
        # checkpoints are named by their steps; ms-swift itself keeps this link to the newest
        adapter=f"{Format.SWIFT}_lora/last-checkpoint",
        data={"file": str(home / f"{name}.jsonl")},
        validation={"val_dataset": str(home / validation)} if (scratch / validation).exists() else {},
        environment=environment,
    )


def _say_how(file: Path, command: str, environment: Mapping[str, Plain]) -> None:
    """Put the command line at the head of the configuration, and under `ENV` what ms-swift is to set itself."""
    head = f"# {command}\n" + (yaml.safe_dump({"ENV": dict(environment)}) if environment else "")
    write_bytes(file, head.encode() + file.read_bytes())
