"""Load a Qwen-VL checkpoint with transformers; when that fails, say what to change."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging

from tasks.errors import EngineError
from tasks.models.engines.identity import check_folders
from tasks.models.engines.spec import EngineSpec
from tasks.models.positions import correct_positions
from tasks.models.qwen_vl import load_processor, read_qwen_vl
from tasks.models.unanswered import summarise


def load_model(spec: EngineSpec) -> tuple[Any, Any]:
    """Return the model (with its adapter) and its processor; raise EngineError, saying how to fix it, if that fails."""
    check_folders(spec)
    read_qwen_vl(spec.model, spec.revision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transformers_logging.disable_progress_bar()  # one bar per fold would bury the run's own lines
    shared = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    try:
        processor = load_processor(spec.model, **shared)
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
    correct_positions(model)
    if spec.adapter is not None:
        model = _load_adapter(model, spec.adapter)
    return model.eval(), processor


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
