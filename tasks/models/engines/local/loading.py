"""Load a Qwen-VL checkpoint with transformers; when that fails, say what to change."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from tasks.errors import EngineError
from tasks.models.engines.identity import check_folders
from tasks.models.engines.spec import EngineSpec
from tasks.models.unanswered import summarise


def load_model(spec: EngineSpec) -> tuple[Any, Any]:
    """Return the model (with its adapter) and its processor; raise EngineError, saying how to fix it, if that fails."""
    check_folders(spec)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transformers_logging.disable_progress_bar()  # one bar per fold would bury the run's own lines
    shared = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    try:
        processor = AutoProcessor.from_pretrained(spec.model, **shared)
        model = AutoModelForImageTextToText.from_pretrained(
            spec.model,
            use_safetensors=True,
            dtype=spec.dtype,
            device_map=device,
            attn_implementation="sdpa",  # label scoring passes its own masks, which flash attention does not accept
            **shared,
        )
    except Exception as error:
        raise EngineError(f"cannot load model {spec.model}: {summarise(error)}; {_suggest_fix(spec, error)}") from error
    if spec.adapter is not None:
        model = _load_adapter(model, spec.adapter)
    return model.eval(), processor


def read_patch_size(spec: EngineSpec) -> int:
    """Return the side of the model's image patches in pixels; 14, as in Qwen2-VL, if the processor cannot be loaded."""
    at_hand = spec.engine == "server" and spec.tokenizer is None  # a server may use a name of its own
    try:
        reader: Any = AutoImageProcessor.from_pretrained(
            spec.tokenizer or spec.model,
            revision=None if spec.tokenizer else spec.revision,
            trust_remote_code=spec.trust_remote_code,
            local_files_only=at_hand,
        )
    except Exception:  # opening the engine reports the reason
        return 14
    return int(reader.patch_size)


def _load_adapter(model: Any, adapter: str) -> Any:
    try:
        adapted = PeftModel.from_pretrained(model, adapter)
    except Exception as error:
        raise EngineError(
            f"cannot load adapter {adapter}: {summarise(error)}; it must be an adapter of this `model`"
        ) from error
    # merging makes it faster, but rounding to 16 bits would lose a small adapter
    return adapted.merge_and_unload() if model.dtype == torch.float32 else adapted.get_base_model()


def _suggest_fix(spec: EngineSpec, error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return "the model contains Python code; set `trust_remote_code: true` if you trust it"
    if "safetensors" in text:
        return "only weights in safetensors format can be loaded; convert the checkpoint"
    if isinstance(error, torch.OutOfMemoryError):
        return "set `dtype: bfloat16` or `engine: vllm` with `tensor_parallel_size`, or use a smaller model"
    if Path(spec.model).is_dir():
        return "the folder must contain config, processor, tokenizer and safetensors weights of a Qwen-VL checkpoint"
    return "check `model` and `revision`, and that the hub can be reached or its cache has the model"
