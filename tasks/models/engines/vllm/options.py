"""Build the command line and the environment of a vLLM server (0.32)."""

import json
import os
import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tasks.models.engines.engine import Workplace
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.installation import Vllm, build_environment
from tasks.models.qwen_vl import make_thinking_optional, read_qwen_vl
from tasks.prompts.recordings import MOST_IMAGES

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


def spans_nodes(spec: EngineSpec) -> bool:
    """Return whether vLLM's own options in `spec` run it on a Ray cluster, where a model may span several machines."""
    words = [word for argument in spec.extra_args for word in argument.split("=", 1)]
    backends = {"--distributed-executor-backend", "--data-parallel-backend"}
    return spec.engine == "vllm" and any(a in backends and b == "ray" for a, b in pairwise(words))


def build_serve_command(
    spec: EngineSpec, place: Workplace, vllm: Vllm, names: Mapping[str | None, str], host: str, port: int
) -> list[str]:
    """Return the command that serves `spec.model` as `names[None]` and each adapter as `names[adapter]`."""
    # `vllm serve` looks up its version under a package name that only the GPU build has; the CPU build needs the older
    # entry point, which is deprecated and starts only one API process
    start = ["vllm.entrypoints.openai.api_server", "--model"] if vllm.cpu else ["vllm.entrypoints.cli.main", "serve"]
    served = [*_list_arguments(spec, place, names, cpu=vllm.cpu), "--host", host, "--port", str(port)]
    # -P: modules in the working directory must not replace vLLM's
    return [str(vllm.python), "-P", "-m", *start, *served, *spec.extra_args]


def format_serve_line(spec: EngineSpec, place: Workplace) -> str:
    """Return the shell command that serves `spec` on another machine or in a container, for `engine: server`."""
    names = {None: spec.model, **{adapter: adapter for adapter in spec.all_adapters()}}
    return shlex.join(["vllm", "serve", *_list_arguments(spec, place, names, cpu=False), *spec.extra_args])


def _list_arguments(spec: EngineSpec, place: Workplace, names: Mapping[str | None, str], *, cpu: bool) -> list[str]:
    """Return the model and the options of its server, without its address and the spec's own arguments."""
    command = [_resolve(spec.model), "--served-model-name", names[None], "--seed", "0"]
    for flag, value in _list_flags(spec, place, cpu=cpu).items():
        command += [] if value is None else [flag, str(value)]
    if adapters := spec.all_adapters():
        modules = [json.dumps({"name": names[adapter], "path": _resolve(adapter)}) for adapter in adapters]
        rank = max(_find_rank_bound(Path(adapter)) for adapter in adapters)
        # adapters answer in turn, so vLLM keeps only one of them in memory
        command += ["--enable-lora", "--lora-modules", *modules, "--max-lora-rank", str(rank)]
    if cpu:
        command += _CPU_FLAGS
    if spec.trust_remote_code:
        command.append("--trust-remote-code")
    if place.most_videos:
        # each request says how many frames a recording has, and their times
        command.append("--trust-request-mm-kwargs")
    # without this option the usage does not report cached tokens
    return [*command, "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]


def build_serve_environment(spec: EngineSpec, vllm: Vllm, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return vLLM's own environment without usage statistics and, for a model in a local folder, without the hub."""
    environment = build_environment(vllm.python, inherited)
    environment |= {**_PRIVATE, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("VLLM_API_KEY", None)  # of another server; ours is set by the caller
    if Path(spec.model).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if vllm.cpu and spec.gpu_memory_utilization is None:
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return environment


def _list_flags(spec: EngineSpec, place: Workplace, *, cpu: bool) -> dict[str, Any]:
    limits = {"image": place.most_images} if place.most_images else {}
    # float32 on the CPU, as in the local engine; vLLM's `auto` would round a float32 checkpoint to 16 bits
    dtype = "float32" if cpu and spec.dtype == "auto" else spec.dtype
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
        "--limit-mm-per-prompt": json.dumps({**limits, "video": place.most_videos}),
        "--mm-processor-kwargs": json.dumps(_choose_sizes(spec, place)),
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


def _choose_sizes(spec: EngineSpec, place: Workplace) -> dict[str, Any]:
    """Return the options of the model's processor, with which it does not resize pictures again.

    They are sent at the size that the model sees. From the bounds, vLLM computes how much memory the largest image or
    recording takes; for Qwen3-VL, those of recordings hold for all frames together.
    """
    size = {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels}
    if not place.most_videos:
        return {"size": size}
    volume = size
    if read_qwen_vl(spec.model, spec.revision).model_type.startswith("qwen3"):
        volume = {"shortest_edge": spec.min_pixels, "longest_edge": MOST_IMAGES * spec.max_pixels}
    return {"images_kwargs": {"size": size}, "videos_kwargs": {"size": volume, "do_resize": False}}


def _resolve(name: str) -> str:
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name


def _find_rank_bound(adapter: Path) -> int:
    rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("r", 16))
    return next((bound for bound in _LORA_RANKS if bound >= rank), _LORA_RANKS[-1])
