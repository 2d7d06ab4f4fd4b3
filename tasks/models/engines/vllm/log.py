"""What vLLM's log says, in a line: how far it is, or why it did not start and which setting mends that."""

import re
from itertools import islice

from tasks.models.engines.spec import EngineSpec

_PREFIX = re.compile(
    r"^(?:\(\w[\w-]* pid=\d+\) )?(?:(?:DEBUG|INFO|WARNING|ERROR) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?"
)
"""vLLM 0.32 writes `(EngineCore pid=12) ERROR 11-21 11:52:58 [core.py:133] text`; tracebacks are prefixed so too."""
_PROGRESS = re.compile(r"\d+%\||it/s\]|\d+% Completed")
_NOISE = re.compile(r"^\W*$|^\s|Route: |Warning:|Triton|No CUDA runtime|█|▄|▀")
"""Also what is indented: code, or more of the line before."""
_ERROR = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b.*|.*\berror: .*")
_SECOND_HAND = re.compile(r"^(?:RuntimeError: Engine core init|RuntimeError: Worker failed|Exception: WorkerProc init)")
"""Errors that only say that there was another one."""
_ANOTHER = ("Traceback", "The above", "During handling", "[")
"""How a line begins that belongs to no error before it."""
_LONGEST = 400
_PYDANTIC = re.compile(r"^pydantic_core\S+: \d+ validation errors? for \w+ (?:Value error, )?|(?<=\S) \[type=.*$")
"""What pydantic writes around the text of an error."""

_MENDS = {
    r"max seq len|[Nn]o available memory for the cache blocks|Cannot auto-fit max_model|requested memory for kv": (
        "lower `context_length` or raise `gpu_memory_utilization` (without a GPU: VLLM_CPU_KVCACHE_SPACE, in GiB)"
    ),
    r"less than desired GPU memory utilization": (
        "another process holds GPU memory: end it, or lower `gpu_memory_utilization`"
    ),
    r"out of memory|OutOfMemoryError|DefaultCPUAllocator: can't allocate|MemoryError": (
        "raise `tensor_parallel_size`, set `quantization`, lower `context_length` or `max_pixels`"
    ),
    r"greater than the derived max_model_len": "lower `context_length` to what the model takes",
    r"[Uu]nknown quantization|[Qq]uantization method|--quantization|quant_method|Cannot find the config file for": (
        "set `quantization` to a method that vLLM knows and the checkpoint has, or leave it out"
    ),
    r"trust_remote_code|trust-remote-code": (
        "the model brings its own code: set `trust_remote_code: true` if you trust it"
    ),
    r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device": (
        "there is no usable GPU: set `engine: local`, or `engine: server` with the address of a machine that has one"
    ),
    r"number of available GPUs|World size|world_size|device_count|not enough .*(?:GPU|core)": (
        "lower `tensor_parallel_size` or `data_parallel_size` to the devices there are"
    ),
    r"attention heads .*divisible|divisible by tensor parallel": "set `tensor_parallel_size` to one that divides it",
    r"[Bb]float16 is only supported": "set `dtype: float16`",
    r"unrecognized arguments|invalid choice|expected (?:one|at least one) argument": "check `extra_args`",
    r"LoRA rank|max_lora_rank|adapter|lora": "check `adapter`: a peft adapter of this model's language part",
    r"Repository ?Not ?Found|is not a valid model identifier|not a local folder|GatedRepo|401 Client": (
        "check `model` and `revision`, and that the hub can be reached (HF_TOKEN for gated models)"
    ),
    r"LocalEntryNotFound|couldn't connect|offline mode|ConnectionError|Max retries|Temporary failure in name": (
        "the model is not in the hub's cache and the hub can't be reached: fetch it, or set `model` to a folder"
    ),
    r"RevisionNotFound|not a valid git identifier|Invalid rev id": (
        "set `revision` to a branch, tag or commit that the model has"
    ),
    r"Cannot find any model weights|config\.json|Invalid repository ID|no file named|not supported for now"
    r"|architectures|preprocessor_config|image processor": (
        "`model` must be a Qwen-VL checkpoint: config, processor, tokenizer and safetensors"
    ),
    r"No space left on device": "make room on the disk",
}
"""What vLLM's log says, as a pattern, and the setting that cures it; the first that matches counts."""


def last_line(log: str) -> str:
    """The last line that says something, without vLLM's prefix; of a progress bar the last state."""
    for line in reversed(log.replace("\r", "\n").splitlines()):
        text = _bare(line)
        if text and (_PROGRESS.search(text) or not _NOISE.search(text)):
            return text[:200]
    return "nothing yet"


def explain(log: str, spec: EngineSpec) -> str:
    """Why a server that left `log` did not start: vLLM's own words and the setting to change."""
    lines = [_bare(line) for line in log.replace("\r", "\n").splitlines()]
    errors = [line for line in lines if _ERROR.match(line)]
    # the first is the cause, what follows is who passed it on; of argparse's there is only one
    first_hand = [line for line in errors if not _SECOND_HAND.match(line)]
    said = next(iter(first_hand or errors), "") or last_line(log)
    detail = _PYDANTIC.sub("", _with_details(lines, said))[:_LONGEST]
    mend = next((mend for pattern, mend in _MENDS.items() if re.search(pattern, detail)), "")
    if not mend:
        # some errors name their cause only in the lines around them
        mend = next((mend for pattern, mend in islice(_MENDS.items(), 3) if re.search(pattern, log)), "see the log")
    return f"vLLM says of {spec.model}: {detail} — {mend}"


def _with_details(lines: list[str], said: str) -> str:
    """An error's text with the lines that belong to it: pydantic and vLLM spread theirs over several."""
    if said not in lines:
        return said
    start = lines.index(said)
    rest: list[str] = []
    for line in lines[start + 1 : start + 4]:
        if not line.strip() or _ERROR.match(line) or line.startswith(_ANOTHER):
            break
        rest.append(line.strip())
    return " ".join([said.strip(), *rest])


def _bare(line: str) -> str:
    return _PREFIX.sub("", line.rstrip())
