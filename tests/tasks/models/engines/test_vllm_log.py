"""What vLLM 0.32 printed when it did not start, and how we explain it."""

import pytest

from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.log import explain, find_last_line

SPEC = EngineSpec(engine="vllm", model="models/teacher")
OPENING = """\
(APIServer pid=17527) WARNING 11-21 12:41:57 [system_utils.py:255] Found ulimit of 20000 and failed to increase. This \
can cause fd limit errors like `OSError: [Errno 24] Too many open files`. Consider increasing with ulimit -n
(APIServer pid=17527) INFO 11-21 12:42:17 [model.py:733] Resolved architecture: Qwen2VLForConditionalGeneration
"""
CLOSING = """\
Traceback (most recent call last):
  File "vllm/v1/engine/utils.py", line 1180, in wait_for_engine_startup
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
PYDANTIC = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, {} "
PYDANTIC += "[type=value_error, input_value=ArgsKwargs((), {{'model': 'x'}}), input_type=ArgsKwargs]\n"
WORKER = "(Worker pid=17741) ERROR 11-21 12:42:45 [multiproc_executor.py:953] {}\n"

CASES = [
    (
        WORKER.format(
            "ValueError: To serve at least one request with the model's max seq len (32768), (4.0 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the "
            "estimated maximum model length is 8192. Try increasing `gpu_memory_utilization` or decreasing "
            "`max_model_len`."
        ),
        "estimated maximum model length is 8192",
        "lower `context_length` or raise `gpu_memory_utilization`",
    ),
    (
        WORKER.format(
            "ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory "
            "utilization (0.92, 72.9 GiB). Decrease GPU memory utilization or reduce GPU memory used by others."
        ),
        "(3.1/79.2 GiB)",
        "end it, or lower `gpu_memory_utilization`",
    ),
    (
        WORKER.format("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB."),
        "Tried to allocate 1.02 GiB",
        "raise `tensor_parallel_size`, use a quantised checkpoint",
    ),
    (
        PYDANTIC.format("Unknown quantization method: nonsense. Must be one of ['awq', 'fp8']."),
        "Unknown quantization method: nonsense",
        "use a checkpoint with a quantisation method that vLLM knows",
    ),
    (
        PYDANTIC.format("User-specified max_model_len (100000) is greater than the derived max_model_len (32768)."),
        "(100000)",
        "lower `context_length` to the model's own limit",
    ),
    (
        PYDANTIC.format("Total number of attention heads (4) must be divisible by tensor parallel size (3)."),
        "attention heads (4)",
        "set `tensor_parallel_size` to a divisor",
    ),
    (
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder\n",
        "cached snapshot folder",
        "the hub cannot be reached",
    ),
    (
        WORKER.format("RuntimeError: Cannot find any model weights with `models/teacher`"),
        "Cannot find any model weights",
        "`model` must be a Qwen-VL checkpoint",
    ),
    (
        WORKER.format("ValueError: Missing required configuration fields: {'lora_alpha'}")
        + "ValueError: Call to add_lora method failed: Worker failed with error 'Missing required fields'\n",
        "{'lora_alpha'}",
        "check `adapter`",
    ),
    (
        "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --no-such-flag\n",
        "unrecognized arguments: --no-such-flag",
        "check `extra_args`",
    ),
    (
        "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`\n",
        "Failed to infer device type",
        "set `engine: local`",
    ),
    (WORKER.format("RuntimeError: something never seen before"), "never seen before", "see the log"),
]


@pytest.mark.parametrize("error, cause, fix", CASES)
def test_an_error_is_explained_by_its_cause_and_a_fix(error: str, cause: str, fix: str):
    message = explain(OPENING + error + CLOSING, SPEC)
    assert cause in message and fix in message and "models/teacher" in message
    assert "\n" not in message and "validation error" not in message and "input_value" not in message
    assert "root cause above" not in message and "ulimit" not in message and "pid=" not in message


def test_a_log_without_an_error_yields_its_last_line():
    assert "Resolved architecture" in explain(OPENING, SPEC)
    assert "nothing yet" in explain("", SPEC)


@pytest.mark.parametrize(
    "log, line",
    [
        (OPENING, "Resolved architecture: Qwen2VLForConditionalGeneration"),
        (OPENING + "(APIServer pid=1) INFO 11-21 11:52:17 [api_utils.py:347]  ▄▄ ▄█ █\n\n", "Resolved architecture"),
        (OPENING + "x.py:9: FutureWarning: gone soon\n  warnings.warn(\n", "Resolved architecture"),
        (
            "Loading shards:   0% Completed | 0/9\rLoading shards:  33% Completed | 3/9",
            "Loading shards:  33% Completed",
        ),
    ],
)
def test_progress_is_the_last_informative_line(log: str, line: str):
    assert find_last_line(log).startswith(line)
