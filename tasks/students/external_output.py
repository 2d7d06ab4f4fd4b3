"""What a trainer left behind: the newest checkpoint in safetensors, and nothing that would have to be unpickled."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError, safe_open

from tasks.errors import EngineError

_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_ADAPTER = "adapter_model.safetensors"
_INDEX = "model.safetensors.index.json"


def is_adapter(checkpoint: Path) -> bool:
    """Whether a checkpoint folder holds a peft adapter (else a whole model)."""
    return (checkpoint / "adapter_config.json").is_file()


def find_checkpoint(output: Path, *, adapter: bool) -> Path:
    """The folder under `output` with the newest adapter (or whole model), its files looked into.

    An adapter is adapter_config.json and adapter_model.safetensors; a whole model is config.json and
    model*.safetensors, with all the files of its index. Raises EngineError with the mend when there is none.
    """
    adapters = _folders(output.rglob(_ADAPTER), "adapter_config.json")
    models = _folders(output.rglob("model*.safetensors"), "config.json")
    found, others = (adapters, models) if adapter else (models, adapters)
    if not found:
        raise EngineError(_why_none(output, adapter, bool(others)))
    newest = max(found, key=lambda folder: max(f.stat().st_mtime_ns for f in folder.glob("*.safetensors")))
    _check(newest)
    return newest


def take_checkpoint(checkpoint: Path, target: Path) -> None:
    """Move a checkpoint's own files to the new folder `target`; pickles (optimizer, arguments) are left behind."""
    target.mkdir(parents=True)
    for file in sorted(checkpoint.iterdir()):
        if file.is_file() and file.suffix not in _PICKLED:
            shutil.move(file, target / file.name)


def _folders(weights: Iterable[Path], beside: str) -> set[Path]:
    return {file.parent for file in weights if (file.parent / beside).is_file()}


def _why_none(output: Path, adapter: bool, other_kind: bool) -> str:
    wanted = "an adapter" if adapter else "a whole model"
    if other_kind:
        was = "a whole model" if adapter else "an adapter"
        return f"it saved {was}, not {wanted}: set `adapter: {str(not adapter).lower()}`, or another template"
    pickled = [f for pattern in ("adapter_model*", "pytorch_model*") for f in output.rglob(pattern)]
    if names := sorted(f.name for f in pickled if f.suffix in _PICKLED):
        return f"it saved {names[0]}, a pickle, which is never loaded: have it save safetensors instead"
    return f"it ended without saving {wanted} under ${{output}}: check `output_dir` and what it says about saving"


def _check(checkpoint: Path) -> None:
    """Raise EngineError unless every file of weights is whole and there."""
    wanted = {file.name for file in checkpoint.glob("*.safetensors")}
    if (checkpoint / _INDEX).is_file() and not is_adapter(checkpoint):
        wanted |= set(orjson.loads((checkpoint / _INDEX).read_bytes())["weight_map"].values())
    for name in sorted(wanted):
        try:
            weights: Any = safe_open(checkpoint / name, framework="np")
            with weights as file:
                empty = not list(file.keys())
        except (SafetensorError, OSError) as error:
            raise EngineError(f"{name} of the checkpoint can't be read: {error}") from error
        if empty:
            raise EngineError(f"{name} of the checkpoint holds no weights")
