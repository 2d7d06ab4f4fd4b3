import json
import shlex
from pathlib import Path

import pytest

from tasks.errors import EngineError
from tasks.models.engines.engine import Workplace
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import check_vllm
from tasks.models.engines.vllm.installation import Vllm
from tasks.models.engines.vllm.options import (
    build_serve_command,
    build_serve_environment,
    format_serve_line,
    spans_nodes,
)
from tasks.models.image_cache import ImageCache

PYTHON = Path("/opt/vllm/bin/python")
GPU, CPU = Vllm(PYTHON, "0.32.0", cpu=False, devices=1), Vllm(PYTHON, "0.32.0", cpu=True)


def options(folder: Path, vllm: Vllm, most_images: int = 3, most_videos: int = 0, **fields) -> dict[str, str | None]:
    """Return the command's flags and their values; None for flags without a value."""
    spec = EngineSpec(**{"engine": "vllm", "model": "Qwen/Qwen2-VL-7B-Instruct", **fields})
    place = Workplace(ImageCache(folder / "images"), folder / "logs", most_images, most_videos)
    names = {None: "m@1", spec.adapter: "m@1+fold0"} if spec.adapter else {None: "m@1"}
    words = build_serve_command(spec, place, vllm, names, "127.0.0.1", 1234)
    words = words[words.index(spec.model) + 1 :]
    pairs = zip(words, [*words[1:], "--"], strict=True)
    return {word: None if value.startswith("--") else value for word, value in pairs if word.startswith("--")}


def test_every_setting_reaches_vllm(tmp_path: Path):
    adapter = tmp_path / "fold0"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 20}')
    found = options(
        tmp_path,
        GPU,
        revision="v2",
        dtype="bfloat16",
        tensor_parallel_size=4,
        data_parallel_size=2,
        gpu_memory_utilization=0.8,
        context_length=9000,
        trust_remote_code=True,
        adapter=str(adapter),
        min_pixels=3136,
        max_pixels=50176,
        extra_args=("--dtype", "float16", "--enforce-eager"),
    )
    module = json.loads(found.pop("--lora-modules") or "")
    assert module == {"name": "m@1+fold0", "path": str(adapter)}
    assert json.loads(found.pop("--mm-processor-kwargs") or "") == {
        "size": {"shortest_edge": 3136, "longest_edge": 50176}
    }
    assert json.loads(found.pop("--limit-mm-per-prompt") or "") == {"image": 3, "video": 0}
    assert json.loads(found.pop("--structured-outputs-config") or "") == {"backend": "guidance"}
    assert found == {
        "--served-model-name": "m@1",
        "--host": "127.0.0.1",
        "--port": "1234",
        "--seed": "0",
        "--dtype": "float16",  # extra_args come last
        "--tensor-parallel-size": "4",
        "--data-parallel-size": "2",
        "--allowed-local-media-path": str(tmp_path / "images"),
        "--max-logprobs": "128",
        "--generation-config": "vllm",
        "--revision": "v2",
        "--max-model-len": "9000",
        "--gpu-memory-utilization": "0.8",
        "--enable-lora": None,
        "--max-lora-rank": "32",  # the next value that vLLM accepts
        "--trust-remote-code": None,
        "--enable-prompt-tokens-details": None,
        "--disable-uvicorn-access-log": None,
        "--enforce-eager": None,
    }


def test_the_line_for_another_machine_starts_the_same_server(tmp_path: Path):
    spec = EngineSpec(engine="vllm", model="Qwen/Qwen2-VL-7B-Instruct", max_pixels=784, extra_args=("--enforce-eager",))
    line = format_serve_line(spec, Workplace(ImageCache(tmp_path / "my images"), tmp_path / "logs", most_images=2))
    words = shlex.split(line)
    assert words[:5] == ["vllm", "serve", spec.model, "--served-model-name", spec.model]
    ours = options(tmp_path, GPU, most_images=2, max_pixels=784, extra_args=spec.extra_args)
    assert {word for word in words if word.startswith("--")} == ours.keys() - {"--host", "--port"}
    assert words[words.index("--allowed-local-media-path") + 1] == str(tmp_path / "my images")


def test_unset_settings_are_left_to_vllm(tmp_path: Path):
    found = options(tmp_path, CPU, most_images=0)
    assert found["--dtype"] == "float32"
    assert found["--limit-mm-per-prompt"] == '{"video": 0}'
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} <= found.keys()
    assert (
        not {"--trust-remote-code", "--quantization", "--max-model-len", "--enable-lora", "--revision"} & found.keys()
    )
    assert not {"--enforce-eager", "--no-enable-chunked-prefill"} & options(tmp_path, GPU).keys()


@pytest.mark.parametrize(
    ("model", "volume"), [("Qwen/Qwen2.5-VL-7B-Instruct", 784), ("Qwen/Qwen3-VL-8B-Instruct", 6272)]
)
def test_recordings_are_shown_as_they_are_sent(model: str, volume: int, tmp_path: Path):
    """Qwen3-VL's bounds are those of all frames together, which are at most as large as 8 images."""
    found = options(tmp_path, GPU, most_videos=2, model=model, min_pixels=784, max_pixels=784)
    assert json.loads(found["--limit-mm-per-prompt"] or "") == {"image": 3, "video": 2}
    assert json.loads(found["--mm-processor-kwargs"] or "") == {
        "images_kwargs": {"size": {"shortest_edge": 784, "longest_edge": 784}},
        "videos_kwargs": {"size": {"shortest_edge": 784, "longest_edge": volume}, "do_resize": False},
    }
    assert "--trust-request-mm-kwargs" in found


def test_the_server_has_no_key_and_sends_nothing(tmp_path: Path):
    spec = EngineSpec(engine="vllm", model=str(tmp_path))
    ours = {"VLLM_API_KEY": "secret", "PATH": "/bin", "VIRTUAL_ENV": "/ours/.venv", "PYTHONPATH": "/ours"}
    found = build_serve_environment(spec, CPU, ours)
    assert found["PATH"] == "/opt/vllm/bin:/bin" and not {"VLLM_API_KEY", "VIRTUAL_ENV", "PYTHONPATH"} & found.keys()
    assert found["VLLM_NO_USAGE_STATS"] == found["DO_NOT_TRACK"] == found["HF_HUB_OFFLINE"] == "1"
    assert found["VLLM_CPU_KVCACHE_SPACE"] == "1"
    named = EngineSpec(engine="vllm", model="Qwen/Qwen2-VL-2B-Instruct", gpu_memory_utilization=0.3)
    found = build_serve_environment(named, CPU, {})
    assert "HF_HUB_OFFLINE" not in found and "VLLM_CPU_KVCACHE_SPACE" not in found
    assert build_serve_environment(spec, CPU, {"VLLM_CPU_KVCACHE_SPACE": "4"})["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert "VLLM_CPU_KVCACHE_SPACE" not in build_serve_environment(spec, GPU, {})


def test_a_model_over_several_machines_is_left_to_vllm(monkeypatch: pytest.MonkeyPatch):
    wide = EngineSpec(
        model="m", tensor_parallel_size=64, extra_args=("--pipeline-parallel-size", "2", "--data-parallel-backend=ray")
    )
    assert spans_nodes(wide)
    assert spans_nodes(wide.model_copy(update={"extra_args": ("--distributed-executor-backend", "ray")}))
    assert not spans_nodes(wide.model_copy(update={"extra_args": ("--distributed-executor-backend", "mp")}))
    monkeypatch.setattr("tasks.models.engines.vllm.engine.require_vllm", lambda spec: GPU)
    check_vllm(wide)  # the devices are on the cluster
    with pytest.raises(EngineError, match="is 64, but this machine has 1 CUDA device"):
        check_vllm(wide.model_copy(update={"extra_args": ()}))
