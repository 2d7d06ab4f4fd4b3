"""Summarise vLLM's log in one line: its progress, or why vLLM did not start and which setting to change."""

import re
from itertools import islice

from tasks.models.engines.spec import EngineSpec

_PREFIX = re.compile(
    r"^(?:\(\w[\w-]* pid=\d+\) )?(?:(?:DEBUG|INFO|WARNING|ERROR) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?"
)
"""vLLM 0.32 writes `(EngineCore pid=12) ERROR 11-21 11:52:58 [core.py:133] text`; tracebacks have the same prefix."""
_PROGRESS = re.compile(r"\d+%\||it/s\]|\d+% Completed")
_NOISE = re.compile(r"^\W*$|^\s|Route: |Warning:|Triton|No CUDA runtime|█|▄|▀")
"""Lines without information; indented ones are code or continue the line before."""
_ERROR = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b.*|.*\berror: .*")
_SECOND_HAND = re.compile(r"^(?:RuntimeError: Engine core init|RuntimeError: Worker failed|Exception: WorkerProc init)")
"""Errors that only report another error."""
_ANOTHER = ("Traceback", "The above", "During handling", "[")
"""Beginnings of lines that do not continue the error before them."""
_LONGEST = 400
_PYDANTIC = re.compile(r"^pydantic_core\S+: \d+ validation errors? for \w+ (?:Value error, )?|(?<=\S) \[type=.*$")
"""What pydantic adds around the text of an error."""

_FIXES = {
    r"max seq len|[Nn]o available memory for the cache blocks|Cannot auto-fit max_model|requested memory for kv": (
        "lower `context_length` or raise `gpu_memory_utilization` (without a GPU: VLLM_CPU_KVCACHE_SPACE, in GiB)"
    ),
    r"less than desired GPU memory utilization": (
        "another process uses the GPU's memory; end it, or lower `gpu_memory_utilization`"
    ),
    r"out of memory|OutOfMemoryError|DefaultCPUAllocator: can't allocate|MemoryError": (
        "raise `tensor_parallel_size`, use a quantised checkpoint, or lower `context_length` or `max_pixels`"
    ),
    r"greater than the derived max_model_len": "lower `context_length` to the model's own limit",
    r"[Uu]nknown quantization|[Qq]uantization method|--quantization|quant_method|Cannot find the config file for": (
        "use a checkpoint with a quantisation method that vLLM knows, or remove `--quantization` from `extra_args`"
    ),
    r"trust_remote_code|trust-remote-code": (
        "the model contains Python code; set `trust_remote_code: true` if you trust it"
    ),
    r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device": (
        "no usable GPU; set `engine: local`, or `engine: server` with the address of a GPU machine"
    ),
    r"number of available GPUs|World size|world_size|device_count|not enough .*(?:GPU|core)": (
        "lower `tensor_parallel_size` or `data_parallel_size` to the number of devices"
    ),
    r"attention heads .*divisible|divisible by tensor parallel": "set `tensor_parallel_size` to a divisor",
    r"[Bb]float16 is only supported": "set `dtype: float16`",
    r"unrecognized arguments|invalid choice|expected (?:one|at least one) argument": "check `extra_args`",
    r"LoRA rank|max_lora_rank|adapter|lora": "check `adapter`: it must be a peft adapter of this model's language part",
    r"Repository ?Not ?Found|is not a valid model identifier|not a local folder|GatedRepo|401 Client": (
        "check `model` and `revision`, and that the hub can be reached (HF_TOKEN for gated models)"
    ),
    r"LocalEntryNotFound|couldn't connect|offline mode|ConnectionError|Max retries|Temporary failure in name": (
        "the hub cannot be reached, and its cache lacks the model; download it, or set `model` to a folder"
    ),
    r"RevisionNotFound|not a valid git identifier|Invalid rev id": (
        "set `revision` to a branch, tag or commit that the model has"
    ),
    r"Cannot find any model weights|config\.json|Invalid repository ID|no file named|not supported for now"
    r"|architectures|preprocessor_config|image processor": (
        "`model` must be a Qwen-VL checkpoint with config, processor, tokenizer and safetensors weights"
    ),
    r"No space left on device": "free disk space",
}
"""Pattern of an error in vLLM's log -> what to change; the first pattern that matches counts."""


def find_last_line(log: str) -> str:
    """Return the last informative line, without vLLM's prefix; of a progress bar, return the last state."""
    for line in reversed(log.replace("\r", "\n").splitlines()):
        text = _strip_prefix(line)
        if text and (_PROGRESS.search(text) or not _NOISE.search(text)):
            return text[:200]
    return "nothing yet"


def explain(log: str, spec: EngineSpec) -> str:
    """Return why the server that wrote this log did not start: vLLM's own message and the setting to change."""
    lines = [_strip_prefix(line) for line in log.replace("\r", "\n").splitlines()]
    errors = [line for line in lines if _ERROR.match(line)]
    # the first is the cause, later ones pass it on; argparse reports only one
    first_hand = [line for line in errors if not _SECOND_HAND.match(line)]
    cause = next(iter(first_hand or errors), "") or find_last_line(log)
    detail = _PYDANTIC.sub("", _join_details(lines, cause))[:_LONGEST]
    fix = next((fix for pattern, fix in _FIXES.items() if re.search(pattern, detail)), "")
    if not fix:
        # some errors name the cause only in the lines around them
        fix = next((fix for pattern, fix in islice(_FIXES.items(), 3) if re.search(pattern, log)), "see the log")
    return f"vLLM reports for {spec.model}: {detail} — {fix}"


def _join_details(lines: list[str], cause: str) -> str:
    """Return the error line joined with the lines that continue it, as pydantic and vLLM write them."""
    if cause not in lines:
        return cause
    start = lines.index(cause)
    rest: list[str] = []
    for line in lines[start + 1 : start + 4]:
        if not line.strip() or _ERROR.match(line) or line.startswith(_ANOTHER):
            break
        rest.append(line.strip())
    return " ".join([cause.strip(), *rest])


def _strip_prefix(line: str) -> str:
    return _PREFIX.sub("", line.rstrip())
