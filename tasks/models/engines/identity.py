"""Which weights answer: a short name for a model that changes when its files do, and is part of every request's key."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from tasks.errors import EngineError
from tasks.models.engines.spec import EngineSpec
from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter

_FILES = (
    *("*config*.json", "tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("chat_template*", "*.safetensors", "*.safetensors.index.json", "*.py"),
)
_WHOLE = 64 << 20
_END = 1 << 20


def folder_digest(folder: Path) -> str:
    """12 hex digits over names and contents of the files that decide what a checkpoint or adapter answers."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in _FILES for p in folder.glob(pattern) if p.is_file()}):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(_content_digest(path))
    return digest.hexdigest()[:12]


def model_identity(spec: EngineSpec) -> str:
    """`folder#digest` of a local checkpoint or `name@revision` of a hub one, with `+adapter#digest` if it has one."""
    identities = [checkpoint_identity(spec.model, spec.revision)]
    if spec.adapter is not None:
        identities.append(checkpoint_identity(spec.adapter, None))
    return "+".join(identities)


def prompter_for(pack: Pack, spec: EngineSpec, texts: Mapping[str, str] | None = None) -> Prompter:
    """Return the prompts of `pack` for the model that `spec` names; `texts` as in `Prompter`."""
    return Prompter(
        pack,
        model_identity(spec),
        max_pixels=spec.max_pixels,
        min_pixels=spec.min_pixels,
        context_length=spec.context_length,
        texts=texts,
    )


def checkpoint_identity(model: str, revision: str | None) -> str:
    """`folder#digest` of a local checkpoint, `name@revision` of a hub one."""
    folder = Path(model)
    if folder.is_dir():
        return f"{folder.resolve().name}#{folder_digest(folder)}"
    return f"{model}@{revision or 'main'}"


def check_folders(spec: EngineSpec) -> None:
    """Raise EngineError for a folder of model or adapters that is not there, which vLLM would find out after 30 s."""
    looks_local = spec.model.startswith((".", "/", "~")) or spec.model.count("/") > 1
    if looks_local and not Path(spec.model).expanduser().is_dir():
        raise EngineError(f"model folder {spec.model} does not exist; set `model` to a checkpoint folder or a hub name")
    for adapter in spec.all_adapters():
        if not (Path(adapter) / "adapter_config.json").is_file():
            raise EngineError(f"adapter {adapter} has no adapter_config.json; set `adapter` to what peft wrote")


def _content_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        if path.stat().st_size <= _WHOLE:
            return hashlib.file_digest(file, "sha256").digest()
        # shards of 5 GB would cost minutes; a retrained shard differs everywhere, so both ends tell
        ends = hashlib.sha256(file.read(_END))
        file.seek(-_END, os.SEEK_END)
        ends.update(file.read(_END))
        return ends.digest()
