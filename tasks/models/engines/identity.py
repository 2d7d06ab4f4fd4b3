"""Give a model a short name that changes when its files change. The name is part of every request's key."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from tasks.errors import EngineError
from tasks.media import BoxForm
from tasks.models.engines.spec import EngineSpec
from tasks.models.qwen_vl import find_served_form
from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter
from tasks.records import digest_of

_FILES = (
    *("*config*.json", "tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("chat_template*", "*.safetensors", "*.safetensors.index.json", "*.py"),
)
_WHOLE = 64 << 20
_END = 1 << 20


def digest_folder(folder: Path) -> str:
    """Return a digest (12 hex digits) of the files that determine what a checkpoint or adapter answers."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in _FILES for p in folder.glob(pattern) if p.is_file()}):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(_digest_content(path))
    return digest.hexdigest()[:12]


def identify_model(spec: EngineSpec) -> str:
    """Return the checkpoint's identity; `+` and those of the adapter, `extra_body` and thinking follow, if any."""
    identities = [identify_checkpoint(spec.model, spec.revision)]
    if spec.adapter is not None:
        identities.append(identify_checkpoint(spec.adapter, None))
    if spec.extra_body:
        identities.append(f"extra_body#{digest_of(spec.extra_body)[:12]}")
    if spec.thinking_tokens:
        identities.append(f"thinking#{spec.thinking_tokens}")
    return "+".join(identities)


def make_prompter(pack: Pack, spec: EngineSpec, texts: Mapping[str, str] | None = None) -> Prompter:
    """Return a prompter for `pack` and the model that `spec` names; `texts` is passed on to `Prompter`."""
    return Prompter(
        pack,
        identify_model(spec),
        max_pixels=spec.max_pixels,
        min_pixels=spec.min_pixels,
        context_length=spec.context_length,
        texts=texts,
        box_form=find_served_form(spec) if pack.boxes else BoxForm.QWEN2,
        thinking_tokens=spec.thinking_tokens,
    )


def identify_checkpoint(model: str, revision: str | None) -> str:
    """Return `folder#digest` for a local folder and `name@revision` for a model on the hub."""
    folder = Path(model)
    if folder.is_dir():
        return f"{folder.resolve().name}#{digest_folder(folder)}"
    return f"{model}@{revision or 'main'}"


def check_folders(spec: EngineSpec) -> None:
    """Raise EngineError when the folder of the model or of an adapter is missing; vLLM would need 30 s to report it."""
    looks_local = spec.model.startswith((".", "/", "~")) or spec.model.count("/") > 1
    if looks_local and not Path(spec.model).expanduser().is_dir():
        raise EngineError(f"model folder {spec.model} does not exist; set `model` to a checkpoint folder or a hub name")
    for adapter in spec.all_adapters():
        if not (Path(adapter) / "adapter_config.json").is_file():
            raise EngineError(
                f"adapter {adapter} has no adapter_config.json; set `adapter` to a folder written by peft"
            )


def _digest_content(path: Path) -> bytes:
    with path.open("rb") as file:
        if path.stat().st_size <= _WHOLE:
            return hashlib.file_digest(file, "sha256").digest()
        # hashing shards of 5 GB takes minutes; a retrained shard differs everywhere, so both ends are enough
        ends = hashlib.sha256(file.read(_END))
        file.seek(-_END, os.SEEK_END)
        ends.update(file.read(_END))
        return ends.digest()
