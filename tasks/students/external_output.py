"""Find an external trainer's newest checkpoint in safetensors, never a pickle, and read its logs."""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import orjson
from safetensors import SafetensorError, safe_open

from tasks.errors import EngineError

_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_ADAPTER = "adapter_model.safetensors"
_INDEX = "model.safetensors.index.json"

_LINES = 8
_LONGEST = 300
_ERROR = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit)\b")
_STEP_KEY = "global_step/max_steps"


def find_checkpoint(output: Path, *, adapter: bool) -> Path:
    """Return the folder under `output` with the newest adapter (or whole model), after checking its weights.

    An adapter consists of adapter_config.json and adapter_model.safetensors; a whole model of config.json and
    model*.safetensors, with all files that its index lists. Raises EngineError with the fix when there is none.
    """
    adapters = _list_folders(output.rglob(_ADAPTER), "adapter_config.json")
    models = _list_folders(output.rglob("model*.safetensors"), "config.json")
    found, others = (adapters, models) if adapter else (models, adapters)
    if not found:
        raise EngineError(_explain_missing(output, adapter, bool(others)))
    newest = max(found, key=lambda folder: max(map(_get_mtime, folder.glob("*.safetensors"))))
    _check_weights(newest)
    return newest


def take_checkpoint(checkpoint: Path, target: Path) -> None:
    """Move the files of a checkpoint to the new folder `target`, except pickles (optimizer, arguments)."""
    target.mkdir(parents=True)
    for file in sorted(checkpoint.iterdir()):
        if file.is_file() and file.suffix not in _PICKLED:
            shutil.move(file, target / file.name)


def find_student_checkpoint(folder: Path) -> tuple[Path, bool]:
    """Return the checkpoint in a student's folder, and True if it is an adapter or False if it is a whole model.

    Raises EngineError when there is none.
    """
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        raise EngineError(f"{folder}: contains no checkpoint; delete the folder to train the student again")
    return checkpoint, _is_adapter(checkpoint)


def read_log_tail(log: Path) -> str:
    """Return the last error in a log, if any, and the log's last 8 lines; of a progress bar, only its last state."""
    text = log.read_bytes().decode("utf-8", errors="replace") if log.exists() else ""
    lines = [line.rstrip().rsplit("\r", 1)[-1][:_LONGEST] for line in text.split("\n")]
    lines = [line for line in lines if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return "\n".join([*errors[-1:], *(f"  {line}" for line in lines[-_LINES:])])


def read_training_log(output: Path) -> list[tuple[int, int, float]]:
    """Return (step, total steps, loss) for each line of the trainer's own log under `output`, if there is one.

    It is LLaMA-Factory's trainer_log.jsonl, ms-swift's logging.jsonl or, without either, the newest trainer_state.json
    of transformers' trainer.
    """
    files = [f for name in ("trainer_log.jsonl", "logging.jsonl") for f in output.rglob(name)]
    if files:
        lines = [_parse(line) for line in max(files, key=_get_mtime).read_bytes().splitlines()]
        return [entry for line in lines if (entry := _parse_entry(line)) is not None]
    states = sorted(output.rglob("trainer_state.json"), key=_get_mtime)
    state = _parse(states[-1].read_bytes()) if states else {}
    total, history = state.get("max_steps", 0), state.get("log_history", [])
    return [(int(h["step"]), int(total), float(h["loss"])) for h in history if "loss" in h and "step" in h]


def _list_folders(weights: Iterable[Path], beside: str) -> set[Path]:
    return {file.parent for file in weights if (file.parent / beside).is_file()}


def _explain_missing(output: Path, adapter: bool, other_kind: bool) -> str:
    wanted = "an adapter" if adapter else "a whole model"
    if other_kind:
        was = "a whole model" if adapter else "an adapter"
        return f"it saved {was}, not {wanted}; set `adapter: {str(not adapter).lower()}`, or use another template"
    pickled = [f for pattern in ("adapter_model*", "pytorch_model*") for f in output.rglob(pattern)]
    if names := sorted(f.name for f in pickled if f.suffix in _PICKLED):
        return f"it saved {names[0]}, a pickle, which is never loaded; set its option to save safetensors"
    return f"it saved no checkpoint ({wanted}) under ${{output}}; check `output_dir` and its options for saving"


def _is_adapter(checkpoint: Path) -> bool:
    return (checkpoint / "adapter_config.json").is_file()


def _check_weights(checkpoint: Path) -> None:
    """Raise EngineError unless every file of weights exists and is readable."""
    wanted = {file.name for file in checkpoint.glob("*.safetensors")}
    if (checkpoint / _INDEX).is_file() and not _is_adapter(checkpoint):
        wanted |= set(orjson.loads((checkpoint / _INDEX).read_bytes())["weight_map"].values())
    for name in sorted(wanted):
        try:
            weights: Any = safe_open(checkpoint / name, framework="np")
            with weights as file:
                empty = not list(file.keys())
        except (SafetensorError, OSError) as error:
            raise EngineError(
                f"{name} of the checkpoint cannot be read: {error}; delete the student's folder to train it again"
            ) from error
        if empty:
            raise EngineError(f"{name} of the checkpoint contains no weights; delete the student's folder")


def _parse_entry(line: Mapping[str, Any]) -> tuple[int, int, float] | None:
    if isinstance(steps := line.get(_STEP_KEY), str):
        done, _, total = steps.partition("/")
    else:
        done, total = line.get("current_steps"), line.get("total_steps")
    try:
        return int(done or ""), int(total or ""), float(line["loss"])
    except (KeyError, TypeError, ValueError):
        return None


def _parse(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line; {} for an incomplete line."""
    try:
        value: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _get_mtime(file: Path) -> int:
    return file.stat().st_mtime_ns
